// A world for machines: virtual time, a network with faults, one seed. Nothing in it knows what the
// machines are for.
//
// The model is TCP between hosts: a link delivers in order, or breaks; bytes take time by latency,
// jitter and bandwidth; what is sent into a cut waits, and after kGiveUpAfter the link breaks at
// both ends. Two links are not ordered among each other, and some lead a longer way, so that what
// was sent last over one can come first. A frozen host (SIGSTOP) neither acts nor closes anything.
// Every host has its own clock. A job is done at once, and the machine hears of it later, so that
// jobs end in any order.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/hash.h"
#include "net/machine.h"
#include "net/wake_up.h"

namespace net {

using HostId = int;

struct NetworkOptions {
  uint64_t seed = 1;
  Duration latency_min = std::chrono::milliseconds(5);
  Duration latency_max = std::chrono::milliseconds(60);  // Between two hosts; chosen once.
  Duration jitter = std::chrono::milliseconds(10);
  Duration detour_max{};           // Longer for all that goes over a link; each has its own.
  double bytes_per_second = 10e6;  // Each link and direction.
  double connect_failure_chance = 0;
  Duration work_time_max = std::chrono::milliseconds(20);  // Of a job; each takes its own.
};

class World {
 public:
  explicit World(const NetworkOptions& options);
  ~World();

  Instant now() const { return now_; }
  base::Random& random() { return random_; }
  void after(Duration delay, std::function<void()> call);
  void run_for(Duration duration);
  // Runs until `is_true` or the time is over; returns whether it is true.
  bool run_until(const std::function<bool()>& is_true, Duration limit);

  // `node`: whose key it proves to have, to both ends of its links; zero where links are plain.
  void add_host(HostId host, const Endpoint& address, const NodeId& node = {});
  // One more address by which it is dialled: a name, or a port map.
  void add_alias(HostId host, const Endpoint& alias) { aliases_.emplace_back(alias, host); }
  // Who dials one of the two reaches the other, from now on: their port maps were exchanged.
  void swap_ports(HostId a, HostId b) { swapped_ports_ = {{a, b}, {b, a}}; }
  void restore_ports() { swapped_ports_.clear(); }
  // The machine outlives its being on.
  void turn_on(HostId host, Machine& machine);
  // Its links break; with `is_silent` the other ends notice only much later, as after a power cut.
  void turn_off(HostId host, bool is_silent = false);
  bool is_on(HostId host) const { return hosts_.at(host).machine != nullptr; }
  void freeze(HostId host) { hosts_.at(host).is_frozen = true; }
  void thaw(HostId host);
  void cut(HostId a, HostId b);
  // What `from` sends to `to` is lost. The other way everything arrives; what confirms it does not.
  void cut_one_way(HostId from, HostId to) { cuts_.insert({from, to}); }
  void heal(HostId a, HostId b);
  void heal_all();
  void break_links(HostId a, HostId b);
  void break_one_link(HostId a, HostId b);
  // That stand, or are being made.
  int64_t link_count(HostId a, HostId b) const;
  void set_connect_failure_chance(double chance) { options_.connect_failure_chance = chance; }
  // Links that stand, and what comes the other way, stay.
  void block_dials(HostId from, HostId to) { blocked_dials_.insert({from, to}); }
  // Nobody can dial it.
  void close_port(HostId host);
  void unblock_dials() { blocked_dials_.clear(); }
  // All that is sent meanwhile, in both directions, comes not before that.
  void clog(HostId a, HostId b, Duration duration);
  // A host's clock goes forward at once, as after its machine was suspended, or at another speed.
  void jump_clock(HostId host, Duration by) { hosts_.at(host).clock_offset += by; }
  void set_clock_rate(HostId host, double rate);

  // The host whose machine is being called.
  std::optional<HostId> acting() const { return acting_; }

  // Calls the machine of a host that is on, or keeps the call while the host is frozen. Lost if the
  // host is turned off before.
  void call(HostId host, std::function<void(Instant now, Outbox& out)> call);

  // Sees (and may change the world, or the message) before every delivery.
  std::function<void(HostId from, HostId to, Message& message)> on_delivery;
  // Whether a message is delivered a second time, right after the first.
  std::function<bool(HostId from, HostId to, const Message& message)> is_repeated;
  // The most that ever waited on a link.
  int64_t queued_bytes_max() const { return queued_bytes_max_; }
  uint64_t event_count() const { return event_count_; }
  // Times that a machine was woken because of time.
  uint64_t tick_count() const { return tick_count_; }

 private:
  class HostOutbox;
  struct Host {
    Endpoint address;
    NodeId node;
    Machine* machine = nullptr;
    std::unique_ptr<HostOutbox> out;
    int64_t incarnation = 0;
    bool is_frozen = false;
    Duration clock_offset{};
    double clock_rate = 1;
    std::deque<std::function<void()>> held;  // While frozen.
    WakeUp wake_up;
    Instant timer_at = Instant::max();  // When its timer rings, if it is set.
  };
  struct Direction {
    Instant free_at{};
    Instant last_arrival{};
    int64_t queued_bytes = 0;
    bool was_above = false;
    std::deque<std::function<void()>> held;  // By a cut.
  };
  struct Link {
    HostId ends[2] = {};               // The dialler, the listener.
    bool is_alive[2] = {true, false};  // As each end knows it.
    Instant open_at{};
    Duration detour{};
    Direction directions[2];  // By who sends.
    bool is_giving_up = false;
  };
  struct Event {
    Instant at{};
    uint64_t order = 0;
    std::function<void()> call;
    bool operator<(const Event& other) const {  // The largest is the next.
      return other.at != at ? other.at < at : other.order < order;
    }
  };

  std::vector<LinkId> links_between(HostId a, HostId b) const;
  std::optional<HostId> listener_at(const Endpoint& endpoint) const;
  void break_link(LinkId id);
  LinkId connect(HostId from, const Endpoint& endpoint);
  void send(HostId from, LinkId id, Message message);
  void close(HostId from, LinkId id);
  int64_t queued_bytes(HostId from, LinkId id) const;
  void start(HostId host, Job job);
  void sent(LinkId id, int side, int64_t bytes);
  void arrive(LinkId id, int side, std::function<void()> deliver);
  void end(LinkId id, int side, const std::string& reason);
  void give_up(LinkId id);
  void note_action(HostId host) { wake_at(host, clock(hosts_.at(host))); }
  void wake_at(HostId host, Instant at);
  void set_timer(HostId host);
  void ring(HostId host, int64_t incarnation, Instant at);
  void call_later(HostId host, int64_t incarnation, std::function<void()> call);
  Instant clock(const Host& host) const;
  bool is_cut_one_way(HostId from, HostId to) const { return cuts_.contains({from, to}); }
  bool is_cut(HostId a, HostId b) const { return is_cut_one_way(a, b) || is_cut_one_way(b, a); }
  void watch(LinkId id);
  void deliver(HostId from, HostId to, LinkId id, Message& message, Instant now, Outbox& out);
  Link& link(LinkId id) { return links_[size_t(id) - 1]; }
  const Link& link(LinkId id) const { return links_[size_t(id) - 1]; }
  Duration latency(HostId a, HostId b);
  Duration uniform(Duration from, Duration to);

  NetworkOptions options_;
  base::Random random_;
  Instant now_{};
  uint64_t event_count_ = 0;
  uint64_t tick_count_ = 0;
  std::vector<Event> events_;  // A heap.
  std::map<HostId, Host> hosts_;
  std::vector<std::pair<Endpoint, HostId>> aliases_;
  std::map<HostId, HostId> swapped_ports_;  // Who is reached in whose place.
  std::deque<Link> links_;                  // Link 1 is the first.
  std::set<std::pair<HostId, HostId>> cuts_;
  std::set<std::pair<HostId, HostId>> blocked_dials_;
  std::map<std::pair<HostId, HostId>, Duration> latencies_;
  std::map<std::pair<HostId, HostId>, Instant> clogged_until_;
  int64_t queued_bytes_max_ = 0;
  std::optional<HostId> acting_;
};

}  // namespace net
