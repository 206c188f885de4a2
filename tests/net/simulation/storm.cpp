#include "net/simulation/storm.h"

#include <algorithm>

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

}  // namespace

Storm::Storm(uint64_t seed) : random_(seed, 2), cluster_(draw(seed)) {
  cluster_.world.on_delivery = [this](HostId from, HostId to, Message& message) {
    spring(from, to, message);
  };
  close_ports();
}

std::string Storm::run() {
  cluster_.start_all();
  attend();
  const Duration duration = seconds(20 + below(40));
  for (Duration at = seconds(5); at < duration; at += milliseconds(200 + below(4000))) {
    cluster_.world.after(at, [this] { strike(); });
  }
  cluster_.world.run_for(duration);
  calm();
  const bool is_well = cluster_.all_active(minutes(5)) &&
                       cluster_.reaches(cluster_.highest_version() + 3, minutes(5));
  std::string wrong = cluster_.violations();
  if (!is_well) wrong += "not everybody gets on: " + story();
  return wrong;
}

ClusterOptions Storm::draw(uint64_t seed) {
  node_count_ = 3 + HostId(below(3));
  ClusterOptions options = quick_cluster(seed, node_count_);
  options.home = chance(0.7) ? 1 : kCoordinatorHost;
  options.coordinator.fail_over = true;
  if (chance(0.3)) options.coordinator.tie_breaker = "node-2";
  // Those who have forgotten what they said decide only when the faults are long over.
  options.coordinator.start_grace = seconds(60);
  options.coordinator.ready_grace = seconds(3);
  options.coordinator.round_timeout = seconds(12);
  options.member.coordinator_patience = minutes(30);
  options.trainer.has_one_history = true;
  using Plan = CoordinatorOptions::Plan;
  constexpr Plan kPlans[] = {Plan::kAuto, Plan::kDirect, Plan::kTwoLevel, Plan::kRing};
  options.coordinator.plan = kPlans[below(std::size(kPlans))];
  options.trainer.fragment_count = 1 + int64_t(below(2));
  options.trainer.overlap_steps_max = below(4);
  options.trainer.apply_time = milliseconds(below(2) * below(400));
  options.trainer.asks_for_samples = true;
  options.network.jitter = milliseconds(below(80));
  options.network.detour_max = milliseconds(chance(0.3) ? 300 : 0);
  options.network.work_time_max = milliseconds(1 + below(60));
  return options;
}

// Of some nodes, in some storms, from the beginning to the end. Node 1 may be where the run begins.
void Storm::close_ports() {
  if (!chance(0.25)) return;
  for (HostId node = 2; node <= node_count_; ++node) {
    if (node > 2 && !chance(0.5)) cluster_.world.close_port(node);
  }
}

void Storm::later(Duration delay, std::function<void()> call) {
  cluster_.world.after(delay, [this, call = std::move(call)] {
    if (!is_over_) call();
  });
}

// The nodes' service managers.
void Storm::attend() {
  cluster_.restart_stopped();
  cluster_.world.after(seconds(1), [this] { attend(); });
}

void Storm::strike() {
  if (is_over_) return;
  World& world = cluster_.world;
  const HostId a = any_node(), b = HostId(below(uint64_t(node_count_) + 1));
  const Duration lasts = milliseconds(100 + below(12000));
  switch (below(9)) {
    case 0:
      return crash(a, lasts);
    case 1:
      for (const HostId node : cluster_.coordinating()) crash(node, lasts);
      return;
    case 2: {
      constexpr MessageType kTypes[] = {MessageType::kOpen,    MessageType::kDone,
                                        MessageType::kCommit,  MessageType::kHello,
                                        MessageType::kWelcome, MessageType::kMembership,
                                        MessageType::kSynced,  MessageType::kApplied};
      trap_ = kTypes[below(std::size(kTypes))];
      trap_countdown_ = 1 + int64_t(below(5));
      return;
    }
    case 3:
      world.freeze(a);
      return later(lasts, [this, a] { cluster_.world.thaw(a); });
    case 4:
      return split(lasts);
    case 5:
      return world.break_links(a, b);
    case 6:
      return world.clog(a, b, lasts / 2);
    case 7:
      world.cut_one_way(a, b);
      return later(lasts, [this, a, b] { cluster_.world.heal(a, b); });
    default:
      if (!may_crash() || !cluster_.is_running(a)) return;
      cluster_.node(a).leave("its operator says so");
      leaving_.insert(a);
      return later(milliseconds(2500), [this, a, lasts] {
        leaving_.erase(a);
        crash(a, lasts, true);
      });
  }
}

// What only one node has in its memory may be lost with it. A second one is not, before the first
// has its place again.
bool Storm::may_crash() {
  if (cluster_.running_nodes().size() < size_t(node_count_)) return false;
  return std::ranges::all_of(cluster_.running_nodes(),
                             [&](HostId node) { return cluster_.node(node).is_active(); });
}

void Storm::crash(HostId node, Duration lasts, bool is_allowed) {
  if (!cluster_.is_running(node) || (!is_allowed && !may_crash())) return;
  ++crash_count_;
  cluster_.crash_node(node, chance(0.3));
  later(lasts, [this, node] {
    if (!cluster_.is_running(node)) cluster_.start_node(node);
  });
}

void Storm::spring(HostId from, HostId to, const Message& message) {
  if (is_over_ || message.type != trap_ || --trap_countdown_ != 0) return;
  for (const HostId node : cluster_.coordinating()) {
    if (node == from || node == to) return crash(node, seconds(1 + below(10)));
  }
}

void Storm::split(Duration lasts) {
  const uint64_t left = below(uint64_t{1} << (node_count_ + 1));
  const bool is_one_way = chance(0.3);
  for (HostId a = 0; a <= node_count_; ++a) {
    for (HostId b = 0; b <= node_count_; ++b) {
      if ((left >> a & 1) == 0 || (left >> b & 1) != 0) continue;
      cluster_.world.cut_one_way(a, b);
      if (!is_one_way) cluster_.world.cut_one_way(b, a);
      later(lasts, [this, a, b] { cluster_.world.heal(a, b); });
    }
  }
}

void Storm::calm() {
  is_over_ = true;
  cluster_.world.heal_all();
  for (HostId node = 1; node <= node_count_; ++node) {
    cluster_.world.thaw(node);
    // Who has said that it leaves is started again, as any that has ended.
    if (leaving_.contains(node) && cluster_.is_running(node)) cluster_.crash_node(node);
    if (!cluster_.is_running(node)) cluster_.start_node(node);
  }
}

std::string Storm::story() {
  std::string text;
  for (const HostId node : cluster_.running_nodes()) {
    text += fmt::format(" node {} {} at version {};", node,
                        cluster_.node(node).is_active() ? "active" : "not active",
                        cluster_.node(node).version(0));
  }
  for (const HostId node : cluster_.coordinating()) text += fmt::format(" {} coordinates", node);
  return text;
}

}  // namespace net
