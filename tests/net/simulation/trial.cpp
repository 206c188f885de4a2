#include "net/simulation/trial.h"

#include <algorithm>

#include "base/log.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Duration kAttendEvery = seconds(1);
// In them even a node that offended many times has kept up for long enough.
constexpr Duration kProbationMax = minutes(20);

// Saying these again does no harm: they name what they are about, or replace what was said before.
bool may_come_twice(MessageType type) {
  switch (type) {
    case MessageType::kWant:
    case MessageType::kChunk:
    case MessageType::kGone:
    case MessageType::kHeartbeat:
    case MessageType::kReady:
    case MessageType::kDone:
    case MessageType::kApplied:
    case MessageType::kSynced:
      return true;
    default:
      return false;
  }
}

// What a node has left on its disk.
Cluster::Memory memory_after(const Fault& fault) {
  const uint64_t which = (fault.detail >> 8) % 10;
  if (which == 1) return Cluster::Memory::kLost;
  return which == 2 ? Cluster::Memory::kStale : Cluster::Memory::kKept;
}

}  // namespace

Trial::Trial(const Scenario& scenario)
    : scenario_(scenario),
      cluster_(scenario.cluster),
      auditor_(cluster_.oracle, scenario.cluster.coordinator.members_min) {
  if (has(FaultKind::kLie)) cluster_.oracle.distrust_weights();
  // One without weight that alone can be dialled has a token.
  if (has(FaultKind::kWeightless)) cluster_.oracle.distrust_weights();
  world().on_delivery = [this](HostId from, HostId to, Message& message) {
    on_delivery(from, to, message);
  };
  world().is_repeated = [this](HostId from, HostId, const Message& message) {
    const auto until = repeats_until_.find(from);
    return until != repeats_until_.end() && world().now() < until->second &&
           may_come_twice(message.type);
  };
}

Outcome Trial::run() {
  start();
  world().run_for(scenario_.duration);
  const Durable durable = keeps_majorities() ? durable_states() : Durable{};
  end_faults();
  if (!scenario_.absent.empty()) {
    for (const HostId node : scenario_.absent) take_away(node);
    is_stuck_ = !get_on(nodes_but(scenario_.absent));
    for (const HostId node : scenario_.absent) bring_back(node);
  }
  if (!is_stuck_) is_stuck_ = !get_on(nodes_but({})) || !all_contribute();
  check_end(durable);
  return {.wrong = verdict(),
          .unseed = unseed(),
          .events = world().event_count(),
          .rounds = cluster_.oracle.round_count()};
}

// --- Faults.

void Trial::start() {
  for (const Fault& fault : scenario_.faults) {
    if (fault.at == Duration{}) {
      apply(fault);
    } else {
      later(fault.at, [this, &fault] { apply(fault); });
    }
  }
  heal_dials();
  cluster_.start_coordinator();
  for (const HostId node : nodes_but(scenario_.late)) cluster_.start_node(node);
  for (const HostId node : scenario_.late) {
    const Duration after = scenario_.duration * node / (scenario_.cluster.node_count + 1);
    later(after, [this, node] { restart(node, Cluster::Memory::kKept); });
  }
  world().after(kAttendEvery, [this] { attend(); });
}

// What was to happen later does not when the faults are over.
void Trial::later(Duration delay, std::function<void()> call) {
  world().after(delay, [this, call = std::move(call)] {
    if (!is_over_) call();
  });
}

void Trial::apply(const Fault& fault) {
  base::log_info("fault: {}", fault.text());
  if (fault.kind >= FaultKind::kCut) return apply_to_network(fault);
  switch (fault.kind) {
    case FaultKind::kBadClock:
      return world().set_clock_rate(fault.a, fault.detail % 2 == 0 ? 0.8 : 1.25);
    case FaultKind::kFreeze:
      world().freeze(fault.a);
      return later(fault.lasts, [this, fault] { world().thaw(fault.a); });
    case FaultKind::kClockJump:
      return world().jump_clock(fault.a, fault.detail % 4 == 0 ? minutes(10) : fault.lasts);
    case FaultKind::kRepeat:
      repeats_until_[fault.a] = world().now() + fault.lasts;
      return;
    default:
      return apply_to_node(fault);
  }
}

void Trial::apply_to_node(const Fault& fault) {
  const HostId node = fault.a;
  MemberOptions options = cluster_.member_options(node);
  switch (fault.kind) {
    case FaultKind::kMisaddressed:
      if (fault.detail % 2 == 0) options.advertise = {"10.0.0.99", 4000};
      if (fault.detail % 2 == 1) options.advertise = cluster_.address(1 + node % nodes());
      return cluster_.change_member_options(node, options);
    case FaultKind::kCopied:
      options.node_key = cluster_.member_options(fault.b).node_key;
      return cluster_.change_member_options(node, options);
    case FaultKind::kWeightless:
      excused_.insert(node);
      return cluster_.set_weight(node, 0);
    case FaultKind::kSlow:
      // Who has not applied a round when the next one is over can only receive.
      if (8 * scenario_.cluster.trainer.apply_time > scenario_.cluster.trainer.step_time) {
        excused_.insert(node);
      }
      return cluster_.set_slowness(node, 8);
    case FaultKind::kLie:
      return start_lying(fault);
    case FaultKind::kCrashAtMessage: {
      constexpr MessageType kTypes[] = {
          MessageType::kOpen,   MessageType::kReown,  MessageType::kCommit, MessageType::kDone,
          MessageType::kChunk,  MessageType::kWant,   MessageType::kStart,  MessageType::kCatchUp,
          MessageType::kSynced, MessageType::kApplied};
      traps_.push_back({.type = kTypes[fault.detail % std::size(kTypes)],
                        .countdown = 1 + int64_t(fault.detail >> 8) % 6,
                        .is_sender = (fault.detail >> 16) % 2 == 0,
                        .lasts = fault.lasts});
      return;
    }
    default:
      break;
  }
  if (!cluster_.is_running(node)) return;
  switch (fault.kind) {
    case FaultKind::kCrash:
      return crash(node, fault);
    case FaultKind::kLeave:
      cluster_.node(node).leave("its operator says so");
      leaving_.insert(node);
      later(milliseconds(100), [this, fault] {
        if (leaving_.erase(fault.a) == 0 || !cluster_.is_running(fault.a)) return;
        crash(fault.a, fault);
      });
      return;
    case FaultKind::kWithdraw:
      return cluster_.node(node).withdraw();
    default:
      return cluster_.node(node).spoil_contributions(1);
  }
}

void Trial::crash(HostId node, const Fault& fault) {
  cluster_.crash_node(node, fault.detail % 4 == 0);
  later(fault.lasts, [this, node, fault] { restart(node, memory_after(fault)); });
}

void Trial::restart(HostId node, Cluster::Memory memory) {
  if (!cluster_.is_running(node)) cluster_.start_node(node, memory);
}

void Trial::apply_to_network(const Fault& fault) {
  const HostId a = fault.a, b = fault.b;
  switch (fault.kind) {
    case FaultKind::kCut:
      world().cut(a, b);
      return later(fault.lasts, [this, a, b] { world().heal(a, b); });
    case FaultKind::kCutOneWay:
      world().cut_one_way(a, b);
      return later(fault.lasts, [this, a, b] { world().heal(a, b); });
    case FaultKind::kPartition:
      return partition(fault);
    case FaultKind::kBreakLinks:
      return world().break_links(a, b);
    case FaultKind::kBreakOneLink:
      return world().break_one_link(a, b);
    case FaultKind::kClog:
      return world().clog(a, b, std::min<Duration>(fault.lasts, seconds(12)));
    case FaultKind::kFailDials:
      world().set_connect_failure_chance(0.4);
      return later(fault.lasts, [this] { world().set_connect_failure_chance(0); });
    case FaultKind::kBlockDials:
      return block_dials(fault);
    default:
      if (!world().is_on(kCoordinatorHost)) return;
      cluster_.crash_coordinator();
      later(fault.lasts, [this, fault] {
        if (world().is_on(kCoordinatorHost)) return;
        cluster_.start_coordinator(fault.detail % 8 == 0 ? Cluster::Term::kLower
                                                         : Cluster::Term::kHigher);
      });
  }
}

// Into two parts; or only what one part sends is lost; or the coordinator still reaches all.
void Trial::partition(const Fault& fault) {
  const bool is_one_way = fault.detail % 4 == 0;
  const bool spares_coordinator = fault.detail % 4 == 1;
  const auto is_left = [&](HostId host) { return (fault.detail >> 8 >> host & 1) != 0; };
  for (HostId a = spares_coordinator ? 1 : 0; a <= nodes(); ++a) {
    for (HostId b = spares_coordinator ? 1 : 0; b <= nodes(); ++b) {
      if (!is_left(a) || is_left(b)) continue;
      world().cut_one_way(a, b);
      if (!is_one_way) world().cut_one_way(b, a);
      later(fault.lasts, [this, a, b] { world().heal(a, b); });
    }
  }
}

void Trial::block_dials(const Fault& fault) {
  for (HostId other = 1; other <= nodes(); ++other) {
    if (other == fault.a) continue;
    const bool is_outward = fault.detail % 2 == 0;
    world().block_dials(is_outward ? fault.a : other, is_outward ? other : fault.a);
    // What stands breaks, or nobody would dial.
    world().break_links(fault.a, other);
  }
  later(fault.lasts, [this] { heal_dials(); });
}

// To all but those that nobody can ever dial.
void Trial::heal_dials() {
  world().unblock_dials();
  for (const HostId node : scenario_.closed) world().close_port(node);
}

void Trial::start_lying(const Fault& fault) {
  const Lie lie = Lie(fault.detail % uint64_t(Lie::kCount));
  const Instant until = world().now() + fault.lasts;
  if (lie != Lie::kSums) {
    lies_[fault.a].push_back({.lie = lie, .salt = fault.detail >> 8, .until = until});
  } else if (cluster_.is_running(fault.a)) {
    cluster_.node(fault.a).lie_about_sums(true);
    later(fault.lasts, [this, node = fault.a] {
      if (cluster_.is_running(node)) cluster_.node(node).lie_about_sums(false);
    });
  }
}

// --- What is delivered.

void Trial::on_delivery(HostId from, HostId to, Message& message) {
  if (const auto lies = lies_.find(from); !is_over_ && lies != lies_.end()) {
    for (const Lying& lying : lies->second) {
      if (world().now() < lying.until) lie(lying, message);
    }
  }
  if (!is_over_) spring(from, to, message);
  auditor_.hear(from, to, message);
}

void Trial::lie(const Lying& lying, Message& message) {
  const bool is_huge = lying.salt % 2 == 0;
  if (message.type == MessageType::kReady) {
    Ready ready = *decode<Ready>(*message.payload);
    if (ready.weight_tokens < 0) return;
    if (lying.lie == Lie::kWeight) ready.weight_tokens = is_huge ? int64_t{1} << 56 : 1'000'000;
    if (lying.lie == Lie::kStep) ready.step += is_huge ? uint64_t{1} << 60 : 7;
    message.payload = encode(ready);
  } else if (message.type == MessageType::kDone && lying.lie == Lie::kDone) {
    Done done = *decode<Done>(*message.payload);
    done.results.bytes[0] ^= uint8_t(1 + lying.salt % 255);
    message.payload = encode(done);
  } else if (message.type == MessageType::kApplied && lying.lie == Lie::kApplied) {
    Applied applied = *decode<Applied>(*message.payload);
    applied.digest.bytes[0] ^= uint8_t(1 + lying.salt % 255);
    message.payload = encode(applied);
  } else if (message.type == MessageType::kHello && lying.lie == Lie::kHello) {
    // Where nothing bounds what is believed, and the newest state wins, this would be the run's
    // end.
    if (scenario_.cluster.coordinator.inner_steps == 0) return;
    Hello hello = *decode<Hello>(*message.payload);
    hello.states.back().version = hello.step + 1000;
    message.payload = encode(hello);
  } else if (message.type == MessageType::kChunk) {
    const auto kind = WantKind((*message.payload)[0]);
    const bool is_result = kind == WantKind::kResult && lying.lie == Lie::kResults;
    const bool is_state = kind == WantKind::kState && lying.lie == Lie::kState;
    if (!is_result && !is_state) return;
    std::vector<std::byte> payload = *message.payload;
    FakeTrainer::falsify(payload, message.authority.chunk, world().random().below(2));
    if (lying.salt % 4 == 1) payload[1] ^= std::byte(0xf0);  // Whose it is, or of which version.
    message.payload = std::make_shared<const std::vector<std::byte>>(std::move(payload));
  }
}

void Trial::spring(HostId from, HostId to, const Message& message) {
  for (Trap& trap : traps_) {
    if (trap.type != message.type || --trap.countdown != 0) continue;
    const HostId victim = trap.is_sender ? from : to;
    if (victim == kCoordinatorHost || !cluster_.is_running(victim)) continue;
    cluster_.crash_node(victim);
    later(trap.lasts, [this, victim] { restart(victim, Cluster::Memory::kKept); });
  }
}

// --- The operators of the nodes, and of their service managers.

void Trial::attend() {
  for (const HostId node : cluster_.running_nodes()) {
    if (const auto stopped = cluster_.node(node).stopped()) attend_to(node, *stopped);
  }
  world().after(kAttendEvery, [this] { attend(); });
}

// A node that was rejected is looked at by a person, who does what the message says.
void Trial::attend_to(HostId node, const Stopped& stopped) {
  if (stopped.restart_makes_sense) {
    cluster_.crash_node(node);
    return cluster_.start_node(node);
  }
  const bool is_copy =
      stopped.reason.starts_with("your node key is in use") && has(FaultKind::kCopied);
  const bool is_newer = stopped.reason.starts_with("your state of fragment") &&
                        !scenario_.cluster.coordinator.adopt_newer;
  const bool is_lie = stopped.reason.starts_with("your state has version") && lies_.contains(node);
  if (!is_copy && !is_newer && !is_lie) {
    cluster_.oracle.violated(fmt::format("node {} was rejected: {}", node, stopped.reason));
  }
  if (!is_over_) return;
  cluster_.crash_node(node);
  if (is_copy) {
    cluster_.forget_member_options(node);
    MemberOptions options = cluster_.member_options(node);
    options.node_key += 1000;
    cluster_.change_member_options(node, options);
  }
  cluster_.start_node(node, is_newer ? Cluster::Memory::kLost : Cluster::Memory::kKept);
}

// --- The end.

void Trial::end_faults() {
  is_over_ = true;
  base::log_info("the faults are over");
  repeats_until_.clear();
  world().set_connect_failure_chance(0);
  heal_dials();
  world().heal_all();
  for (HostId host = 0; host <= nodes(); ++host) {
    world().set_clock_rate(host, 1);
    world().thaw(host);
  }
  if (!world().is_on(kCoordinatorHost)) cluster_.start_coordinator();
  for (const Fault& fault : scenario_.faults) {
    if (fault.kind != FaultKind::kMisaddressed) continue;
    cluster_.forget_member_options(fault.a);
    if (cluster_.is_running(fault.a)) cluster_.crash_node(fault.a);
  }
  // Who lied is repaired. Where it was one of two, its lie would be in force for as long as it
  // lives.
  for (const auto& [node, lies] : lies_) leaving_.insert(node);
  for (const HostId node : nodes_but({})) {
    if (leaving_.contains(node) && cluster_.is_running(node)) cluster_.crash_node(node);
    if (!cluster_.is_running(node)) cluster_.start_node(node);
    cluster_.node(node).spoil_contributions(0);
    cluster_.node(node).lie_about_sums(false);
  }
}

void Trial::take_away(HostId node) {
  const uint64_t how = world().random().below(3);
  if (how == 0) return cluster_.crash_node(node, true);
  if (how == 1) return world().freeze(node);
  for (HostId host = 0; host <= nodes(); ++host) {
    if (host != node) world().cut(node, host);
  }
}

void Trial::bring_back(HostId node) {
  world().thaw(node);
  for (HostId host = 0; host <= nodes(); ++host) world().heal(node, host);
  if (!cluster_.is_running(node)) cluster_.start_node(node);
}

bool Trial::get_on(const std::vector<HostId>& nodes) {
  const auto versions = [&](auto&& each) {
    for (const HostId node : nodes) {
      if (!cluster_.is_running(node)) continue;
      for (const uint64_t version : cluster_.node(node).checkpoint().versions) each(version);
    }
  };
  uint64_t target = 0;
  versions([&](uint64_t version) { target = std::max(target, version + 3); });
  const auto is_there = [&] {
    uint64_t lowest = target;
    versions([&](uint64_t version) { lowest = std::min(lowest, version); });
    return lowest >= target;
  };
  return world().run_until(is_there, patience());
}

// Who has just been on probation must keep up first.
bool Trial::all_contribute() {
  std::map<HostId, size_t> before;
  for (const HostId node : nodes_but(excused_)) {
    before[node] = cluster_.node(node).commits().size();
  }
  const auto has_contributed = [&](const auto& entry) {
    const auto& commits = cluster_.node(entry.first).commits();
    if (commits.size() < entry.second) return true;  // Started anew, so it was looked after.
    return std::any_of(commits.begin() + int64_t(entry.second), commits.end(),
                       [](const Committed& one) { return one.contributed; });
  };
  return world().run_until([&] { return std::ranges::all_of(before, has_contributed); },
                           kProbationMax);
}

Duration Trial::patience() const {
  const CoordinatorOptions& c = scenario_.cluster.coordinator;
  return minutes(5) + c.start_grace + 2 * (c.ready_grace + c.round_timeout + c.stall_after) +
         c.dead_after + scenario_.cluster.member.fetch_patience;
}

std::vector<HostId> Trial::nodes_but(const std::set<HostId>& absent) const {
  std::vector<HostId> present;
  for (HostId node = 1; node <= nodes(); ++node) {
    if (!absent.contains(node)) present.push_back(node);
  }
  return present;
}

bool Trial::has(FaultKind kind) const {
  return std::ranges::any_of(scenario_.faults, [&](const Fault& f) { return f.kind == kind; });
}

// Whether no run can go on without somebody who has what a majority had.
bool Trial::keeps_majorities() const {
  const CoordinatorOptions& c = scenario_.cluster.coordinator;
  const int64_t count = scenario_.cluster.node_count;
  const bool loses_disks = std::ranges::any_of(scenario_.faults, [](const Fault& fault) {
    const bool is_crash = fault.kind == FaultKind::kCrash || fault.kind == FaultKind::kLeave;
    return is_crash && memory_after(fault) != Cluster::Memory::kKept;
  });
  return 2 * c.start_members > count && 2 * c.members_min > count && !loses_disks &&
         !has(FaultKind::kLie) && c.adopt_newer;
}

Trial::Durable Trial::durable_states() {
  Durable durable(size_t(scenario_.cluster.trainer.fragment_count));
  for (size_t fragment = 0; fragment < durable.size(); ++fragment) {
    std::map<base::Digest, int64_t> holders;
    for (const HostId node : nodes_but({})) {
      for (const auto& state : cluster_.oracle.history(
               int64_t(fragment), cluster_.disk_digest(node, int64_t(fragment)))) {
        ++holders[state];
      }
    }
    for (const auto& [state, count] : holders) {
      if (2 * count > scenario_.cluster.node_count) durable[fragment].push_back(state);
    }
  }
  return durable;
}

void Trial::check_end(const Durable& durable) {
  Oracle& oracle = cluster_.oracle;
  const HostId node = cluster_.running_nodes().front();
  for (int64_t fragment = 0; fragment < scenario_.cluster.trainer.fragment_count; ++fragment) {
    const base::Digest state = cluster_.node(node).digest(fragment);
    oracle.check_work(fragment, state);
    if (durable.empty()) continue;
    const auto history = oracle.history(fragment, state);
    for (const base::Digest& one : durable[size_t(fragment)]) {
      if (std::ranges::find(history, one) != history.end()) continue;
      oracle.violated(fmt::format("fragment {} lost what a majority had on its disks", fragment));
    }
  }
}

std::string Trial::verdict() {
  if (std::string violations = cluster_.violations(); !violations.empty()) return violations;
  if (!is_stuck_) return {};
  std::string wrong = "not everybody gets on:";
  for (const HostId node : cluster_.running_nodes()) {
    const FakeTrainer& trainer = cluster_.node(node);
    const auto in_rounds = std::ranges::count(trainer.commits(), true, &Committed::contributed);
    wrong += fmt::format(" node {} {} {} at version {}, in {} of {} rounds;", node,
                         trainer.is_active() ? "active" : "not active",
                         trainer.contributes() ? "contributing" : "not contributing",
                         trainer.version(0), in_rounds, trainer.commits().size());
  }
  return wrong;
}

uint64_t Trial::unseed() {
  base::Sha256 hash;
  for (const HostId node : cluster_.running_nodes()) {
    for (const FragmentState& state : cluster_.node(node).states()) {
      hash.update(std::as_bytes(std::span(state.digest.bytes)));
    }
  }
  const uint64_t numbers[] = {world().random().next_u64(), world().event_count(),
                              uint64_t(world().now().count())};
  hash.update(std::as_bytes(std::span(numbers)));
  const base::Digest digest = hash.finish();
  uint64_t unseed = 0;
  for (size_t i = 0; i < sizeof(unseed); ++i) unseed |= uint64_t{digest.bytes[i]} << (8 * i);
  return unseed;
}

}  // namespace net
