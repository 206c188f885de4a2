#include "net/simulator.h"

#include <algorithm>
#include <tuple>

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTick = milliseconds(250);
constexpr Duration kGiveUpAfter = seconds(15);
constexpr int64_t kHeaderBytes = 64;

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

 private:
  World& world_;
  const HostId host_;
};

World::World(const NetworkOptions& options)
    : options_(options), random_(options.seed), now_(seconds(1000)) {}
World::~World() = default;

void World::after(Duration delay, std::function<void()> call) {
  events_.push({.at = now_ + delay, .order = ++event_count_, .call = std::move(call)});
}

void World::run_for(Duration duration) {
  run_until([] { return false; }, duration);
}

bool World::run_until(const std::function<bool()>& is_true, Duration limit) {
  const Instant end = now_ + limit;
  while (!is_true()) {
    if (events_.empty() || events_.top().at > end) {
      now_ = end;
      return is_true();
    }
    Event event = events_.top();
    events_.pop();
    now_ = event.at;
    event.call();
  }
  return true;
}

void World::add_host(HostId host, const Endpoint& address) {
  Host& h = hosts_[host];
  h.address = address;
  h.out = std::make_unique<HostOutbox>(*this, host);
  h.clock_offset = uniform(seconds(0), seconds(100000));
}

void World::turn_on(HostId host, Machine& machine) {
  Host& h = hosts_.at(host);
  h.machine = &machine;
  h.is_frozen = false;
  ++h.incarnation;
  call(host,
       [this, host](Instant now, Outbox& out) { hosts_.at(host).machine->on_start(now, out); });
  const int64_t incarnation = h.incarnation;
  after(uniform(Duration(1), kTick), [=, this] { tick(host, incarnation); });
}

void World::turn_off(HostId host, bool is_silent) {
  Host& h = hosts_.at(host);
  h.machine = nullptr;
  h.held.clear();
  ++h.incarnation;
  for (auto& [id, link] : links_) {
    for (const int side : {0, 1}) {
      if (link.ends[side] != host || !link.is_alive[side]) continue;
      link.is_alive[side] = false;
      const HostId other = link.ends[1 - side];
      const bool is_noticed = !is_silent && !is_cut(host, other);
      after(is_noticed ? latency(host, other) : kGiveUpAfter,
            [this, id = id, side] { end(id, 1 - side, "the other side is gone"); });
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

void World::heal(HostId a, HostId b) {
  if (cuts_.erase(std::minmax(a, b)) == 0) return;
  for (auto& [id, link] : links_) {
    if (std::minmax(link.ends[0], link.ends[1]) != std::minmax(a, b)) continue;
    for (Direction& direction : link.directions) {
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
  for (const auto& [id, link] : links_) {
    const bool is_alive = link.is_alive[0] || link.is_alive[1];
    if (is_alive && std::minmax(link.ends[0], link.ends[1]) == std::minmax(a, b))
      between.push_back(id);
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
    call(now_ + h.clock_offset, *h.out);
  });
}

void World::call_later(HostId host, int64_t incarnation, std::function<void()> call) {
  Host& h = hosts_.at(host);
  if (h.machine == nullptr || h.incarnation != incarnation) return;
  if (h.is_frozen) {
    h.held.push_back([=, this] { call_later(host, incarnation, call); });
    return;
  }
  call();
}

void World::tick(HostId host, int64_t incarnation) {
  call_later(host, incarnation, [=, this] {
    Host& h = hosts_.at(host);
    h.machine->on_tick(now_ + h.clock_offset, *h.out);
    after(kTick, [=, this] { tick(host, incarnation); });
  });
}

LinkId World::connect(HostId from, const Endpoint& endpoint) {
  const LinkId id = ++last_link_;
  const auto found = std::ranges::find_if(
      hosts_, [&](const auto& entry) { return entry.second.address == endpoint; });
  Link& link = links_[id];
  link.ends[0] = from;
  link.ends[1] = found == hosts_.end() ? from : found->first;
  const HostId to = link.ends[1];
  const bool is_unlucky = random_.uniform() < options_.connect_failure_chance;
  if (found == hosts_.end() || is_unlucky || is_cut(from, to)) {
    after(is_cut(from, to) ? kGiveUpAfter : latency(from, to),
          [this, id] { end(id, 0, "it could not be connected"); });
    link.open_at = now_ + seconds(1'000'000);
    return id;
  }
  const Duration way = latency(from, to);
  link.open_at = now_ + 2 * way;
  for (Direction& direction : link.directions) direction.free_at = link.open_at;
  after(way, [this, id, way] {
    Link& l = links_.at(id);
    Host& listener = hosts_.at(l.ends[1]);
    if (listener.machine == nullptr) {
      after(way, [this, id] { end(id, 0, "it was refused"); });
      return;
    }
    l.is_alive[1] = true;
    call(l.ends[1], [this, id](Instant now, Outbox& out) {
      Link& opened = links_.at(id);
      if (!opened.is_alive[1]) return;
      const Remote remote{{hosts_.at(opened.ends[0]).address.host, 50000}};
      hosts_.at(opened.ends[1]).machine->on_link_open(id, true, remote, now, out);
    });
    after(way, [this, id] {
      if (!links_.at(id).is_alive[0]) return;
      call(links_.at(id).ends[0], [this, id](Instant now, Outbox& out) {
        Link& opened = links_.at(id);
        if (!opened.is_alive[0]) return;
        const Remote remote{hosts_.at(opened.ends[1]).address};
        hosts_.at(opened.ends[0]).machine->on_link_open(id, false, remote, now, out);
      });
    });
  });
  return id;
}

void World::send(HostId from, LinkId id, Message message) {
  Link& link = links_.at(id);
  const int side = link.ends[0] == from ? 0 : 1;
  if (!link.is_alive[side]) return;
  Direction& direction = link.directions[side];
  const int64_t bytes = kHeaderBytes + int64_t(message.payload->size());
  direction.queued_bytes += bytes;
  queued_bytes_max_ = std::max(queued_bytes_max_, direction.queued_bytes);
  direction.was_above |= direction.queued_bytes > kQueuedBytesMax;
  const Instant start = std::max({now_, direction.free_at, link.open_at});
  direction.free_at = start + Duration(int64_t(double(bytes) / options_.bytes_per_second * 1e9));
  after(direction.free_at - now_, [=, this] { sent(id, side, bytes); });
  const HostId to = link.ends[1 - side];
  const Instant arrival =
      direction.free_at + latency(from, to) + uniform(Duration(0), options_.jitter);
  direction.last_arrival = std::max(direction.last_arrival + Duration(1), arrival);
  after(direction.last_arrival - now_, [=, this, message = std::move(message)]() mutable {
    arrive(id, side, [=, this]() mutable {
      if (!links_.at(id).is_alive[1 - side]) {
        // A system that has been started again does not know the link, and says so.
        if (hosts_.at(to).machine != nullptr) end(id, side, "it was reset");
        return;
      }
      call(to, [=, this](Instant now, Outbox& out) mutable {
        if (!links_.at(id).is_alive[1 - side]) return;
        if (on_delivery) on_delivery(from, to, message);
        if (!links_.at(id).is_alive[1 - side] || hosts_.at(to).machine == nullptr) return;
        hosts_.at(to).machine->on_message(id, message, now, out);
      });
    });
  });
}

void World::start(HostId host, Job job) {
  job.work();
  const int64_t incarnation = hosts_.at(host).incarnation;
  after(uniform(Duration(0), options_.work_time_max), [=, this, done = std::move(job.done)] {
    call_later(host, incarnation, [=, this] {
      Host& h = hosts_.at(host);
      done(now_ + h.clock_offset, *h.out);
    });
  });
}

void World::sent(LinkId id, int side, int64_t bytes) {
  Link& link = links_.at(id);
  Direction& direction = link.directions[side];
  direction.queued_bytes -= bytes;
  if (!direction.was_above || direction.queued_bytes > kQueuedBytesMax / 2) return;
  direction.was_above = false;
  if (!link.is_alive[side]) return;
  call(link.ends[side], [=, this](Instant now, Outbox& out) {
    if (links_.at(id).is_alive[side]) {
      hosts_.at(links_.at(id).ends[side]).machine->on_drained(id, now, out);
    }
  });
}

void World::arrive(LinkId id, int side, std::function<void()> deliver) {
  Link& link = links_.at(id);
  Direction& direction = link.directions[side];
  if (!is_cut(link.ends[0], link.ends[1])) return deliver();
  direction.held.push_back([=, this] { arrive(id, side, deliver); });
  if (link.is_giving_up) return;
  link.is_giving_up = true;
  after(kGiveUpAfter, [this, id] { give_up(id); });
}

void World::give_up(LinkId id) {
  Link& link = links_.at(id);
  link.is_giving_up = false;
  if (!is_cut(link.ends[0], link.ends[1])) return;
  for (const int side : {0, 1}) end(id, side, "it timed out");
}

void World::close(HostId from, LinkId id) {
  Link& link = links_.at(id);
  const int side = link.ends[0] == from ? 0 : 1;
  if (!link.is_alive[side]) return;
  link.is_alive[side] = false;
  const Instant last =
      std::max(link.directions[side].last_arrival, now_ + latency(link.ends[0], link.ends[1]));
  after(last - now_ + Duration(1), [=, this] {
    arrive(id, side, [=, this] { end(id, 1 - side, "the other side closed it"); });
  });
}

void World::end(LinkId id, int side, const std::string& reason) {
  Link& link = links_.at(id);
  if (!link.is_alive[side]) return;
  call(link.ends[side], [=, this](Instant now, Outbox& out) {
    Link& ended = links_.at(id);
    if (!ended.is_alive[side]) return;
    ended.is_alive[side] = false;
    hosts_.at(ended.ends[side]).machine->on_link_closed(id, reason, now, out);
  });
}

int64_t World::queued_bytes(HostId from, LinkId id) const {
  const Link& link = links_.at(id);
  return link.directions[link.ends[0] == from ? 0 : 1].queued_bytes;
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
