#include "net/simulation/storm.h"

#include <algorithm>
#include <fmt/ranges.h>

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
  draw_ports();
}

std::string Storm::run() {
  cluster_.start_all();
  attend();
  const Duration duration = seconds(20 + below(40));
  for (Duration at = seconds(5); at < duration; at += milliseconds(200 + below(4000))) {
    cluster_.world.after(at, [this] { strike(); });
  }
  if (loses_all_disks_) later(duration / 2, [this] { lose_all_disks(); });
  cluster_.world.run_for(duration);
  calm();
  const bool is_well = gets_on();
  std::string wrong = cluster_.violations();
  if (!is_well) wrong += "not everybody gets on: " + story();
  return wrong;
}

// Of a run with an end: all finish that had made its last steps by then. Who was away has nobody
// left to ask.
bool Storm::gets_on() {
  if (!has_end_) {
    return cluster_.all_active(minutes(5)) &&
           cluster_.reaches(cluster_.highest_version() + 3, minutes(5));
  }
  const auto is_over = [&] {
    return !finished_.empty() && std::ranges::includes(finished_, at_end_);
  };
  return cluster_.run_until(is_over, minutes(20));
}

void Storm::watch_end() {
  const auto running = cluster_.running_nodes();
  const auto is_done = [&](HostId node) { return cluster_.node(node).is_done(); };
  if (finished_.empty() && std::ranges::any_of(running, is_done)) {
    std::ranges::copy_if(running, std::inserter(at_end_, at_end_.end()), [&](HostId node) {
      return is_done(node) || (cluster_.node(node).is_active() && cluster_.node(node).is_at_end());
    });
  }
  for (const HostId node : running) {
    if (is_done(node) && finished_.insert(node).second)
      cluster_.world.after(milliseconds(2500), [this, node] { cluster_.crash_node(node); });
  }
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
  loses_all_disks_ = options.home == kCoordinatorHost && chance(0.1);
  options.trainer.has_one_history = !loses_all_disks_;
  has_end_ = !loses_all_disks_ && chance(0.2);
  if (has_end_) options.trainer.steps_total = 150 + below(250);
  options.coordinator.steps_total = options.trainer.steps_total;
  if (has_end_) options.member.coordinator_patience = seconds(60);
  options.has_alias = options.home != kCoordinatorHost && chance(0.3);
  options.is_secured = is_secured_ = !loses_all_disks_ && chance(0.3);
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

// Some nodes cannot be dialled, in some storms, from the beginning to the end; but node 1 may be
// where the run begins. In others it cannot dial itself by the address that it has for the rest.
void Storm::draw_ports() {
  if (chance(0.3)) cluster_.world.block_dials(1, 1);
  if (!chance(0.5)) return;
  for (HostId node = 2; node <= node_count_; ++node) {
    if (node > 2 && chance(0.7)) cluster_.world.close_port(node);
  }
}

void Storm::later(Duration delay, std::function<void()> call) {
  cluster_.world.after(delay, [this, call = std::move(call)] {
    if (!is_over_) call();
  });
}

// The nodes' service managers.
void Storm::attend() {
  watch_end();
  cluster_.restart_stopped();
  cluster_.world.after(seconds(1), [this] { attend(); });
}

void Storm::strike() {
  if (is_over_) return;
  World& world = cluster_.world;
  const HostId a = any_node(), b = HostId(below(uint64_t(node_count_) + 1));
  const Duration lasts = milliseconds(100 + below(12000));
  switch (below(is_secured_ ? 10 : 9)) {
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
    case 9:
      world.swap_ports(a, any_node());
      return later(lasts, [this] { cluster_.world.restore_ports(); });
    default:
      if (!cluster_.is_running(a) || !may_crash(a)) return;
      cluster_.node(a).leave("its operator says so");
      leaving_.insert(a);
      return later(milliseconds(2500), [this, a, lasts] {
        leaving_.erase(a);
        crash(a, lasts, true);
      });
  }
}

// What only one node has in its memory may be lost with it. So none is that decides alone; and not
// a second one before the first has its place again.
bool Storm::may_crash(HostId node) {
  if (cluster_.running_nodes().size() < size_t(node_count_)) return false;
  return !cluster_.decides_alone(node) &&
         std::ranges::all_of(cluster_.running_nodes(),
                             [&](HostId one) { return cluster_.node(one).is_active(); });
}

void Storm::crash(HostId node, Duration lasts, bool is_allowed) {
  if (!cluster_.is_running(node) || (!is_allowed && !may_crash(node))) return;
  ++crash_count_;
  at_end_.erase(node);
  cluster_.crash_node(node, chance(0.3));
  later(lasts, [this, node] { start(node); });
}

void Storm::start(HostId node, Cluster::Memory memory) {
  if (!cluster_.is_running(node) && !finished_.contains(node)) cluster_.start_node(node, memory);
}

// As when all machines were rented anew, but for the coordinator's. Their keys are on their disks.
void Storm::lose_all_disks() {
  for (HostId node = 1; node <= node_count_; ++node) {
    if (cluster_.is_running(node)) cluster_.crash_node(node);
    MemberOptions options = cluster_.member_options(node);
    options.node_key += 1000;
    cluster_.change_member_options(node, options);
    start(node, Cluster::Memory::kLost);
  }
  cluster_.crash_coordinator();
  cluster_.start_coordinator();
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
  cluster_.world.restore_ports();
  for (HostId node = 1; node <= node_count_; ++node) {
    cluster_.world.thaw(node);
    // Who has said that it leaves is started again, as any that has ended.
    if (leaving_.contains(node) && cluster_.is_running(node)) cluster_.crash_node(node);
    start(node);
  }
}

std::string Storm::story() {
  std::string text;
  for (const HostId node : cluster_.running_nodes()) {
    const FakeTrainer& trainer = cluster_.node(node);
    text += fmt::format(" node {} {} at step {} and versions {};", node,
                        trainer.is_active() ? "active" : "not active", trainer.step(),
                        fmt::join(trainer.versions(), " "));
  }
  for (const HostId node : at_end_) text += fmt::format(" node {} was to finish;", node);
  for (const HostId node : finished_) text += fmt::format(" node {} has finished;", node);
  for (const HostId node : cluster_.coordinating()) text += fmt::format(" {} coordinates", node);
  return text;
}

}  // namespace net
