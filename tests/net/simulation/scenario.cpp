#include "net/simulation/scenario.h"

#include <algorithm>
#include <array>

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr std::array<const char*, size_t(FaultKind::kCount)> kNames = {
    "misaddressed", "copied",      "weightless",       "slow",       "bad-clock",
    "crash",        "leave",       "withdraw",         "spoil",      "crash-at",
    "lie",          "freeze",      "clock-jump",       "repeat",     "cut",
    "cut-one-way",  "partition",   "break-links",      "break-link", "clog",
    "fail-dials",   "block-dials", "crash-coordinator"};

double to_seconds(Duration time) {
  return std::chrono::duration<double>(time).count();
}

class Drawing {
 public:
  explicit Drawing(uint64_t seed) : random_(seed, 1) { scenario_.seed = seed; }

  Scenario draw() {
    scenario_.cluster = quick_cluster(scenario_.seed, 2 + int64_t(below(4)));
    scenario_.duration = seconds(10 + below(30));
    draw_trainer();
    draw_network();
    draw_limits();
    for (HostId node = 2; node <= nodes(); ++node) {
      if (chance(0.3)) scenario_.late.insert(node);
    }
    draw_traits();
    draw_faults();
    draw_absent();
    draw_closed();
    draw_plan();
    return std::move(scenario_);
  }

 private:
  uint64_t below(uint64_t bound) { return random_.below(bound); }
  bool chance(double probability) { return random_.uniform() < probability; }
  HostId nodes() const { return HostId(scenario_.cluster.node_count); }
  HostId any_node() { return 1 + HostId(below(uint64_t(nodes()))); }
  HostId any_host() { return HostId(below(uint64_t(nodes()) + 1)); }
  HostId another_host(HostId than) {
    return (than + 1 + HostId(below(uint64_t(nodes())))) % (nodes() + 1);
  }
  Duration up_to(Duration longest) { return Duration(int64_t(below(uint64_t(longest.count())))); }

  Duration way() const {
    const NetworkOptions& network = scenario_.cluster.network;
    return network.latency_max + network.jitter + network.detour_max;
  }

  // A limit is what suits a round of a second, or as small or as large as somebody might set it.
  template <class T>
  void limit(T& value, std::type_identity_t<T> tiny, std::type_identity_t<T> huge) {
    const uint64_t which = below(6);
    if (which == 0) value = tiny;
    if (which == 1) value = huge;
  }

  void draw_trainer() {
    TrainerOptions& trainer = scenario_.cluster.trainer;
    trainer.fragment_count = 1 + int64_t(below(3));
    trainer.chunk_count = 1 + int64_t(below(9));
    if (chance(0.02)) trainer.chunk_count = 40;
    trainer.block_count = 1 + int64_t(below(uint64_t(trainer.chunk_count)));
    trainer.step_time = milliseconds(100 + below(300));
    trainer.overlap_steps_max = below(trainer.steps_per_round);
    trainer.apply_time = milliseconds(below(2) * below(1000));  // With tau, it comes late.
    trainer.padding_bytes = 8 * int64_t(below(4));
    trainer.result_padding_bytes = 8 * int64_t(below(4));
    trainer.asks_for_samples = true;
  }

  void draw_network() {
    NetworkOptions& network = scenario_.cluster.network;
    network.work_time_max = milliseconds(chance(0.2) ? 1000 : below(40));
    network.latency_max = milliseconds(20 + below(150));
    network.jitter = milliseconds(below(100));
    network.detour_max = milliseconds(chance(0.3) ? 500 : 0);
    network.bytes_per_second = chance(0.2) ? 20e3 : 10e6;
  }

  void draw_limits() {
    CoordinatorOptions& c = scenario_.cluster.coordinator;
    c.start_members = 1 + int64_t(below(uint64_t(nodes())));
    c.members_min = 1 + int64_t(below(2));
    if (chance(0.3)) c.start_members = c.members_min = nodes() / 2 + 1;
    // Here a new coordinator may well begin with the node whose memory is oldest.
    c.adopt_newer = chance(0.65);
    limit(c.start_grace, seconds(1), seconds(60));
    limit(c.ready_grace, milliseconds(200), seconds(60));
    limit(c.round_timeout, seconds(8), minutes(5));
    limit(c.stall_after, seconds(2), minutes(1));
    limit(c.heartbeat_interval, milliseconds(300), seconds(3));
    limit(c.dead_after, seconds(2), minutes(1));
    keep_possible(c);
    if (chance(0.5)) {
      c.inner_steps = scenario_.cluster.trainer.steps_per_round;
      c.tokens_per_step = 1000;
    }
    MemberOptions& m = scenario_.cluster.member;
    limit(m.coordinator_patience, seconds(5), minutes(10));
    limit(m.fetch_patience, seconds(40), minutes(5));
    limit(m.wants_in_flight_max, 1, 1 << 20);
    limit(m.window_bytes_max, 1, int64_t{1} << 40);
    limit(m.links_per_peer_max, 1, 64);
    // Whoever catches up must get the results quicker than rounds are made, also one at a time.
    TrainerOptions& trainer = scenario_.cluster.trainer;
    trainer.step_time = std::max(trainer.step_time, way());
    if (m.wants_in_flight_max > 1 && m.window_bytes_max > 1) return;
    trainer.block_count = 1;
    trainer.fragment_count = 1;
    trainer.chunk_count = std::min<int64_t>(trainer.chunk_count, 3);
    trainer.step_time = std::max(trainer.step_time, 2 * way());
  }

  // Whoever is healthy must be able to keep within the limits.
  void keep_possible(CoordinatorOptions& c) const {
    const Duration step = 2 * scenario_.cluster.trainer.step_time;
    // Whoever only receives is given two heartbeats for it.
    c.heartbeat_interval =
        std::max(c.heartbeat_interval, 3 * way() + scenario_.cluster.network.work_time_max);
    const Duration heartbeats = 2 * c.heartbeat_interval + seconds(1);
    c.ready_grace = std::max(c.ready_grace, 2 * way() + step);
    c.dead_after = std::max(c.dead_after, heartbeats + 2 * way());
    c.stall_after = std::max(c.stall_after,
                             heartbeats + 4 * way() + 5 * scenario_.cluster.network.work_time_max);
    c.round_timeout = std::max(c.round_timeout, 2 * c.stall_after);
  }

  void add(FaultKind kind, HostId a, HostId b = 0, Duration at = {}, Duration lasts = {}) {
    scenario_.faults.push_back(
        {.kind = kind, .at = at, .lasts = lasts, .a = a, .b = b, .detail = random_.next_u64()});
  }

  void draw_traits() {
    if (chance(0.05)) add(FaultKind::kMisaddressed, any_node());
    if (chance(0.05)) add(FaultKind::kWeightless, any_node());
    if (chance(0.1)) add(FaultKind::kSlow, any_node());
    if (chance(0.1)) add(FaultKind::kBadClock, any_host());
    const HostId node = any_node();
    if (nodes() > 2 && chance(0.05)) add(FaultKind::kCopied, node, node % nodes() + 1);
  }

  void draw_faults() {
    // Some runs have many faults of a few kinds, most have some of all.
    std::set<FaultKind> kinds;
    if (chance(0.3)) {
      while (kinds.size() < 3) kinds.insert(any_kind());
    }
    const bool has_liars = chance(0.25);
    const Duration pause = milliseconds(chance(0.3) ? 800 : 3000);
    for (Duration at = up_to(seconds(5)); at < scenario_.duration; at += up_to(pause)) {
      const FaultKind kind = any_kind();
      if (!kinds.empty() && !kinds.contains(kind)) continue;
      if (kind == FaultKind::kLie && !has_liars) continue;
      draw_fault(kind, at);
    }
  }

  FaultKind any_kind() {
    const auto first = uint64_t(FaultKind::kCrash);
    return FaultKind(first + below(uint64_t(FaultKind::kCount) - first));
  }

  void draw_fault(FaultKind kind, Duration at) {
    const HostId host = kind <= FaultKind::kLie ? any_node() : any_host();
    add(kind, host, another_host(host), at, up_to(chance(0.05) ? seconds(90) : seconds(12)));
  }

  void draw_absent() {
    const auto most = uint64_t((nodes() - 1) / 2);
    const uint64_t count = chance(0.5) ? below(most + 1) : 0;
    while (scenario_.absent.size() < count) scenario_.absent.insert(any_node());
    if (nodes() - int64_t(count) < scenario_.cluster.coordinator.members_min) {
      scenario_.absent.clear();
    }
  }

  // Somebody who can be dialled must be there, also while others are away.
  void draw_closed() {
    if (!chance(0.25)) return;
    std::vector<HostId> present;
    for (HostId node = 1; node <= nodes(); ++node) {
      if (!scenario_.absent.contains(node)) present.push_back(node);
    }
    const HostId open = present[below(present.size())];
    for (HostId node = 1; node <= nodes(); ++node) {
      if (node != open && chance(0.5)) scenario_.closed.insert(node);
    }
  }

  // The last thing that is drawn, so that the faults of a seed are the same with every plan.
  void draw_plan() {
    using Plan = CoordinatorOptions::Plan;
    constexpr std::array kPlans = {Plan::kAuto, Plan::kDirect, Plan::kTwoLevel, Plan::kRing};
    scenario_.cluster.coordinator.plan = kPlans[below(kPlans.size())];
  }

  base::Random random_;
  Scenario scenario_;
};

}  // namespace

const char* name_of(FaultKind kind) {
  return kNames[size_t(kind)];
}

std::string Fault::text() const {
  return fmt::format("{:7.3f} s  {} {} {}, for {:.3f} s, {:x}", to_seconds(at), name_of(kind), a, b,
                     to_seconds(lasts), detail);
}

std::string Scenario::text() const {
  const CoordinatorOptions& c = cluster.coordinator;
  const TrainerOptions& t = cluster.trainer;
  const MemberOptions& m = cluster.member;
  std::string text = fmt::format(
      "seed {}: {} nodes, {} fragments of {} chunks, plan {}, steps of {:.3f} s, overlap {}, "
      "applied in "
      "{:.3f} s, faults for {:.0f} s\n"
      "start {} of at least {} (adopt_newer {}), graces {:.1f} {:.1f} s, round {:.0f} s, stall "
      "{:.1f} s, heartbeat {:.1f} s, dead {:.1f} s, patience {:.0f} {:.0f} s, wants {} window {} "
      "links {}\n",
      seed, cluster.node_count, t.fragment_count, t.chunk_count, int(c.plan),
      to_seconds(t.step_time), t.overlap_steps_max, to_seconds(t.apply_time), to_seconds(duration),
      c.start_members, c.members_min, c.adopt_newer, to_seconds(c.start_grace),
      to_seconds(c.ready_grace), to_seconds(c.round_timeout), to_seconds(c.stall_after),
      to_seconds(c.heartbeat_interval), to_seconds(c.dead_after),
      to_seconds(m.coordinator_patience), to_seconds(m.fetch_patience), m.wants_in_flight_max,
      m.window_bytes_max, m.links_per_peer_max);
  for (const Fault& fault : faults) text += "  " + fault.text() + "\n";
  for (const HostId node : closed) text += fmt::format("  node {} cannot be dialled\n", node);
  for (const HostId node : absent) text += fmt::format("  then node {} is away\n", node);
  return text;
}

Scenario draw_scenario(uint64_t seed) {
  return Drawing(seed).draw();
}

Scenario reduce(Scenario scenario, const Reduction& reduction) {
  std::vector<Fault> kept;
  const auto nodes = HostId(reduction.nodes.value_or(scenario.cluster.node_count));
  for (size_t i = 0; i < scenario.faults.size(); ++i) {
    const Fault& fault = scenario.faults[i];
    const bool is_kept = !reduction.faults || reduction.faults->contains(i);
    const bool is_early = !reduction.end || fault.at < *reduction.end;
    if (is_kept && is_early && fault.a <= nodes && fault.b <= nodes) kept.push_back(fault);
  }
  scenario.faults = std::move(kept);
  scenario.duration = std::min(scenario.duration, reduction.end.value_or(scenario.duration));
  if (!reduction.nodes || *reduction.nodes >= scenario.cluster.node_count) return scenario;
  scenario.cluster.node_count = nodes;
  CoordinatorOptions& coordinator = scenario.cluster.coordinator;
  coordinator.start_members = std::min<int64_t>(coordinator.start_members, nodes);
  coordinator.members_min = std::min<int64_t>(coordinator.members_min, nodes);
  std::erase_if(scenario.absent, [&](HostId node) { return node > nodes; });
  std::erase_if(scenario.late, [&](HostId node) { return node > nodes; });
  if (2 * int64_t(scenario.absent.size()) >= nodes) scenario.absent.clear();
  std::erase_if(scenario.closed, [&](HostId node) { return node > nodes; });
  std::set<HostId> unreachable = scenario.closed;
  unreachable.insert(scenario.absent.begin(), scenario.absent.end());
  if (int64_t(unreachable.size()) == nodes) scenario.closed.clear();
  return scenario;
}

}  // namespace net
