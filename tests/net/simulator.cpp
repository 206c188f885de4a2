#include "net/simulator.h"

#include <algorithm>
#include <utility>

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A timer is late now and then, never early.
constexpr Duration kTimerLateness = milliseconds(20);
constexpr Duration kGiveUpAfter = seconds(15);
constexpr int64_t kHeaderBytes = 64;
// The least that a system takes of a connection before the line does: not queued for its machine.
constexpr int64_t kSystemBytes = 16 * 1024;

}  // namespace

class World::HostOutbox : public Outbox {
 public:
  HostOutbox(World& world, HostId host) : world_(world), host_(host) {}
  LinkId connect(const Endpoint& endpoint) override { return world_.connect(host_, endpoint); }
  void send(LinkId link, Message message) override { world_.send(host_, link, std::move(message)); }
  void close(LinkId link) override { world_.close(host_, link); }
  int64_t queued_bytes(LinkId link) const override { return world_.queued_bytes(host_, link); }
  int64_t all_queued_bytes() const override { return 0; }  // Budgets are the host's tests.
  void start(Job job) override { world_.start(host_, std::move(job)); }
  void wake_at(Instant at) override { world_.wake_at(host_, at); }

 private:
  World& world_;
  const HostId host_;
};

World::World(const NetworkOptions& options)
    : options_(options), random_(options.seed), now_(seconds(1000)) {}
World::~World() = default;

void World::after(Duration delay, std::function<void()> call) {
  events_.push_back({.at = now_ + delay, .order = ++event_count_, .call = std::move(call)});
  std::ranges::push_heap(events_, std::less<>{});
}

void World::run_for(Duration duration) {
  run_until([] { return false; }, duration);
}

bool World::run_until(const std::function<bool()>& is_true, Duration limit) {
  const Instant end = now_ + limit;
  while (!is_true()) {
    if (events_.empty() || events_.front().at > end) {
      now_ = end;
      return is_true();
    }
    std::ranges::pop_heap(events_, std::less<>{});
    const Event event = std::move(events_.back());
    events_.pop_back();
    now_ = event.at;
    event.call();
  }
  return true;
}

void World::add_host(HostId host, const Endpoint& address, const NodeId& node) {
  Host& h = hosts_[host];
  h.address = address;
  h.node = node;
  h.out = std::make_unique<HostOutbox>(*this, host);
  h.clock_offset = uniform(seconds(0), seconds(100000));
}

void World::turn_on(HostId host, Machine& machine) {
  Host& h = hosts_.at(host);
  h.machine = &machine;
  h.is_frozen = false;
  ++h.incarnation;
  h.wake_up = {};
  h.timer_at = Instant::max();
  call(host,
       [this, host](Instant now, Outbox& out) { hosts_.at(host).machine->on_start(now, out); });
}

void World::turn_off(HostId host, bool is_silent) {
  Host& h = hosts_.at(host);
  h.machine = nullptr;
  h.held.clear();
  ++h.incarnation;
  for (LinkId id = 1; id <= links_.size(); ++id) {
    Link& l = link(id);
    for (const int side : {0, 1}) {
      if (l.ends[side] != host || !l.is_alive[side]) continue;
      l.is_alive[side] = false;
      const HostId other = l.ends[1 - side];
      const bool is_noticed = !is_silent && !is_cut(host, other);
      after(is_noticed ? latency(host, other) : kGiveUpAfter,
            [this, id, side] { end(id, 1 - side, "the other side is gone"); });
    }
  }
}

void World::thaw(HostId host) {
  Host& h = hosts_.at(host);
  h.is_frozen = false;
  while (!h.held.empty() && !h.is_frozen) {
    auto call = std::move(h.held.front());
    h.held.pop_front();
    call();
  }
}

void World::cut(HostId a, HostId b) {
  cut_one_way(a, b);
  cut_one_way(b, a);
}

void World::heal(HostId a, HostId b) {
  if (cuts_.erase({a, b}) + cuts_.erase({b, a}) == 0) return;
  for (Link& l : links_) {
    if (std::minmax(l.ends[0], l.ends[1]) != std::minmax(a, b)) continue;
    for (Direction& direction : l.directions) {
      for (auto& deliver : direction.held) after(latency(a, b), std::move(deliver));
      direction.last_arrival = std::max(direction.last_arrival, now_ + latency(a, b));
      direction.held.clear();
    }
  }
}

void World::heal_all() {
  const auto cuts = cuts_;
  for (const auto& [a, b] : cuts) heal(a, b);
}

void World::clog(HostId a, HostId b, Duration duration) {
  Instant& until = clogged_until_[std::minmax(a, b)];
  until = std::max(until, now_ + duration);
}

// The hands do not move, only their speed changes.
void World::set_clock_rate(HostId host, double rate) {
  Host& h = hosts_.at(host);
  const Instant shown = clock(h);
  h.clock_rate = rate;
  h.clock_offset += shown - clock(h);
}

Instant World::clock(const Host& host) const {
  if (host.clock_rate == 1) return now_ + host.clock_offset;
  return Duration(int64_t(double(now_.count()) * host.clock_rate)) + host.clock_offset;
}

void World::close_port(HostId host) {
  for (const auto& [other, ignored] : hosts_) {
    if (other != host) block_dials(other, host);
  }
}

void World::break_links(HostId a, HostId b) {
  for (const LinkId id : links_between(a, b)) break_link(id);
}

void World::break_one_link(HostId a, HostId b) {
  const auto links = links_between(a, b);
  if (!links.empty()) break_link(links[random_.below(links.size())]);
}

int64_t World::link_count(HostId a, HostId b) const {
  return int64_t(links_between(a, b).size());
}

std::vector<LinkId> World::links_between(HostId a, HostId b) const {
  std::vector<LinkId> between;
  for (LinkId id = 1; id <= links_.size(); ++id) {
    const Link& l = link(id);
    const bool is_alive = l.is_alive[0] || l.is_alive[1];
    if (is_alive && std::minmax(l.ends[0], l.ends[1]) == std::minmax(a, b)) between.push_back(id);
  }
  return between;
}

void World::break_link(LinkId id) {
  for (const int side : {0, 1}) {
    after(uniform(Duration(0), milliseconds(20)),
          [this, id, side] { end(id, side, "it was reset"); });
  }
}

void World::call(HostId host, std::function<void(Instant now, Outbox& out)> call) {
  const int64_t incarnation = hosts_.at(host).incarnation;
  call_later(host, incarnation, [this, host, call = std::move(call)] {
    Host& h = hosts_.at(host);
    call(clock(h), *h.out);
  });
}

void World::call_later(HostId host, int64_t incarnation, std::function<void()> call) {
  Host& h = hosts_.at(host);
  if (h.machine == nullptr || h.incarnation != incarnation) return;
  if (h.is_frozen) {
    h.held.push_back([=, this] { call_later(host, incarnation, call); });
    return;
  }
  const auto before = std::exchange(acting_, host);
  call();
  acting_ = before;
  if (h.machine == nullptr || h.incarnation != incarnation) return;
  h.wake_up.review(clock(h));
  set_timer(host);
}

void World::wake_at(HostId host, Instant at) {
  Host& h = hosts_.at(host);
  h.wake_up.ask(at, clock(h));
}

// As often as its machine wants to be woken. A timer that is set anew for an earlier time is
// another one.
void World::set_timer(HostId host) {
  Host& h = hosts_.at(host);
  const Instant at = h.wake_up.at();
  if (at >= h.timer_at) return;
  h.timer_at = at;
  const double wait = std::max(0.0, double((at - clock(h)).count()) / h.clock_rate);
  after(Duration(int64_t(wait)) + uniform(Duration(1), kTimerLateness),
        [=, this, incarnation = h.incarnation] { ring(host, incarnation, at); });
}

void World::ring(HostId host, int64_t incarnation, Instant at) {
  Host& h = hosts_.at(host);
  if (h.machine == nullptr || h.incarnation != incarnation || h.timer_at != at) return;
  if (h.is_frozen) {
    h.held.push_back([=, this] { ring(host, incarnation, at); });
    return;
  }
  h.timer_at = Instant::max();
  if (clock(h) >= h.wake_up.at()) {
    h.wake_up.begin_tick();
    ++tick_count_;
    const auto before = std::exchange(acting_, host);
    h.machine->on_tick(clock(h), *h.out);
    acting_ = before;
  }
  if (h.machine != nullptr && h.incarnation == incarnation) set_timer(host);
}

std::optional<HostId> World::listener_at(const Endpoint& endpoint) const {
  for (const auto& [alias, host] : aliases_) {
    if (alias == endpoint) return host;
  }
  for (const auto& [id, host] : hosts_) {
    if (host.address != endpoint) continue;
    const auto swapped = swapped_ports_.find(id);
    return swapped == swapped_ports_.end() ? id : swapped->second;
  }
  return std::nullopt;
}

LinkId World::connect(HostId from, const Endpoint& endpoint) {
  note_action(from);
  const LinkId id = links_.size() + 1;
  const auto listener = listener_at(endpoint);
  Link& made = links_.emplace_back();
  made.ends[0] = from;
  made.ends[1] = listener.value_or(from);
  made.detour = uniform(Duration(0), options_.detour_max);
  const HostId to = made.ends[1];
  const bool is_unlucky =
      random_.uniform() < options_.connect_failure_chance || blocked_dials_.contains({from, to});
  if (!listener || is_unlucky || is_cut(from, to)) {
    after(is_cut(from, to) ? kGiveUpAfter : latency(from, to),
          [this, id] { end(id, 0, "it could not be connected"); });
    made.open_at = now_ + seconds(1'000'000);
    return id;
  }
  const Duration way = latency(from, to) + made.detour;
  made.open_at = now_ + 2 * way;
  for (Direction& direction : made.directions) direction.free_at = made.open_at;
  after(way, [this, id, way] {
    Link& l = link(id);
    Host& listener = hosts_.at(l.ends[1]);
    if (listener.machine == nullptr) {
      after(way, [this, id] { end(id, 0, "it was refused"); });
      return;
    }
    l.is_alive[1] = true;
    call(l.ends[1], [this, id](Instant now, Outbox& out) {
      Link& opened = link(id);
      if (!opened.is_alive[1]) return;
      const Host& dialler = hosts_.at(opened.ends[0]);
      const Remote remote{{dialler.address.host, 50000}, dialler.node};
      hosts_.at(opened.ends[1]).machine->on_link_open(id, true, remote, now, out);
    });
    after(way, [this, id] {
      if (!link(id).is_alive[0]) return;
      call(link(id).ends[0], [this, id](Instant now, Outbox& out) {
        Link& opened = link(id);
        if (!opened.is_alive[0]) return;
        const Host& answering = hosts_.at(opened.ends[1]);
        const Remote remote{answering.address, answering.node};
        hosts_.at(opened.ends[0]).machine->on_link_open(id, false, remote, now, out);
      });
    });
  });
  return id;
}

void World::send(HostId from, LinkId id, Message message) {
  note_action(from);
  Link& l = link(id);
  const int side = l.ends[0] == from ? 0 : 1;
  if (!l.is_alive[side]) return;
  Direction& direction = l.directions[side];
  const int64_t bytes = kHeaderBytes + int64_t(message.payload->size());
  direction.queued_bytes += bytes;
  queued_bytes_max_ = std::max(queued_bytes_max_, direction.queued_bytes);
  direction.was_above |= direction.queued_bytes > kQueuedBytesMax;
  const Instant start = std::max({now_, direction.free_at, l.open_at});
  direction.free_at = start + Duration(int64_t(double(bytes) / options_.bytes_per_second * 1e9));
  after(direction.free_at - now_, [=, this] { sent(id, side, bytes); });
  const HostId to = l.ends[1 - side];
  Instant arrival =
      direction.free_at + latency(from, to) + l.detour + uniform(Duration(0), options_.jitter);
  if (!clogged_until_.empty()) arrival = std::max(arrival, clogged_until_[std::minmax(from, to)]);
  direction.last_arrival = std::max(direction.last_arrival + Duration(1), arrival);
  after(direction.last_arrival - now_, [=, this, message = std::move(message)]() mutable {
    arrive(id, side, [=, this]() mutable {
      if (!link(id).is_alive[1 - side]) {
        // A system that has been started again does not know the link, and says so.
        if (hosts_.at(to).machine != nullptr) end(id, side, "it was reset");
        return;
      }
      call(to, [=, this](Instant now, Outbox& out) mutable {
        const bool is_repeated_now = is_repeated && is_repeated(from, to, message);
        for (int time = 0; time < (is_repeated_now ? 2 : 1); ++time) {
          deliver(from, to, id, message, now, out);
        }
      });
    });
  });
}

void World::deliver(HostId from, HostId to, LinkId id, Message& message, Instant now, Outbox& out) {
  const int side = link(id).ends[0] == to ? 0 : 1;
  if (!link(id).is_alive[side] || hosts_.at(to).machine == nullptr) return;
  if (on_delivery) on_delivery(from, to, message);
  if (!link(id).is_alive[side] || hosts_.at(to).machine == nullptr) return;
  hosts_.at(to).machine->on_message(id, message, now, out);
}

void World::start(HostId host, Job job) {
  note_action(host);
  job.work();
  const int64_t incarnation = hosts_.at(host).incarnation;
  after(uniform(Duration(0), options_.work_time_max), [=, this, done = std::move(job.done)] {
    call_later(host, incarnation, [=, this] {
      Host& h = hosts_.at(host);
      done(clock(h), *h.out);
    });
  });
}

void World::sent(LinkId id, int side, int64_t bytes) {
  Link& l = link(id);
  Direction& direction = l.directions[side];
  direction.queued_bytes -= bytes;
  if (!direction.was_above || direction.queued_bytes > kQueuedBytesMax / 2) return;
  direction.was_above = false;
  if (!l.is_alive[side]) return;
  call(l.ends[side], [=, this](Instant now, Outbox& out) {
    if (link(id).is_alive[side]) hosts_.at(link(id).ends[side]).machine->on_drained(id, now, out);
  });
}

// What is lost on its way, or is never confirmed, ends the link after a while.
void World::arrive(LinkId id, int side, std::function<void()> deliver) {
  Link& l = link(id);
  const HostId from = l.ends[side], to = l.ends[1 - side];
  if (is_cut(from, to)) watch(id);
  if (!is_cut_one_way(from, to)) return deliver();
  l.directions[side].held.push_back([=, this] { arrive(id, side, deliver); });
}

void World::watch(LinkId id) {
  if (std::exchange(link(id).is_giving_up, true)) return;
  after(kGiveUpAfter, [this, id] { give_up(id); });
}

void World::give_up(LinkId id) {
  Link& l = link(id);
  l.is_giving_up = false;
  if (!is_cut(l.ends[0], l.ends[1])) return;
  for (const int side : {0, 1}) end(id, side, "it timed out");
}

void World::close(HostId from, LinkId id) {
  note_action(from);
  Link& l = link(id);
  const int side = l.ends[0] == from ? 0 : 1;
  if (!l.is_alive[side]) return;
  l.is_alive[side] = false;
  const Instant last =
      std::max(l.directions[side].last_arrival, now_ + latency(l.ends[0], l.ends[1]));
  after(last - now_ + Duration(1), [=, this] {
    arrive(id, side, [=, this] { end(id, 1 - side, "the other side closed it"); });
  });
}

void World::end(LinkId id, int side, const std::string& reason) {
  const Link& l = link(id);
  if (!l.is_alive[side]) return;
  call(l.ends[side], [=, this](Instant now, Outbox& out) {
    Link& ended = link(id);
    if (!ended.is_alive[side]) return;
    ended.is_alive[side] = false;
    hosts_.at(ended.ends[side]).machine->on_link_closed(id, reason, now, out);
  });
}

int64_t World::queued_bytes(HostId from, LinkId id) const {
  const Link& l = link(id);
  return std::max<int64_t>(l.directions[l.ends[0] == from ? 0 : 1].queued_bytes - kSystemBytes, 0);
}

Duration World::latency(HostId a, HostId b) {
  const auto key = std::minmax(a, b);
  const auto found = latencies_.find(key);
  if (found != latencies_.end()) return found->second;
  return latencies_[key] = uniform(options_.latency_min, options_.latency_max);
}

Duration World::uniform(Duration from, Duration to) {
  if (to <= from) return from;
  return from + Duration(int64_t(random_.below(uint64_t((to - from).count()))));
}

}  // namespace net
