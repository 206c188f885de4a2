// Whatever happens: random clusters with random faults, one seed each. While faults happen, every
// commit must be right (tests/net/fake_trainer.h); when they have stopped, everybody must get on.
//
//   ATOLL_SEEDS=100000 tests/net/test_net "random faults*"     more of them
//   ATOLL_SEED=17 ATOLL_LOG=1 tests/net/test_net "random faults*"    this one, with the log
#include <cstdlib>

#include "net/cluster.h"

#undef CHECK
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

class Chaos {
 public:
  explicit Chaos(uint64_t seed) : random_(seed, 1), cluster_(make_options(seed)) {}

  // Empty if all went well.
  std::string run() {
    start();
    const Instant end = cluster_.world.now() + seconds(60);
    while (cluster_.world.now() < end) {
      cluster_.world.run_for(milliseconds(below(3000)));
      do_harm();
      cluster_.restart_stopped();
    }
    make_good();
    const uint64_t target = cluster_.highest_version() + 3;
    for (int i = 0; i < 60 && cluster_.lowest_version() < target; ++i) {
      (void)cluster_.reaches(target, seconds(5));
      cluster_.restart_stopped();
    }
    if (const std::string wrong = cluster_.violations(); !wrong.empty()) return wrong;
    if (cluster_.lowest_version() >= target) return {};
    return fmt::format("versions are {} to {} long after the last fault, not {}",
                       cluster_.lowest_version(), cluster_.highest_version(), target);
  }

  int64_t round_count() const { return cluster_.oracle.round_count(); }

 private:
  uint64_t below(uint64_t bound) { return random_.below(bound); }
  bool chance(double probability) { return random_.uniform() < probability; }
  HostId any_node() { return 1 + HostId(below(uint64_t(node_count_))); }
  HostId any_host() { return HostId(below(uint64_t(node_count_) + 1)); }

  ClusterOptions make_options(uint64_t seed) {
    node_count_ = 2 + int64_t(below(4));
    ClusterOptions options = quick_cluster(seed, node_count_);
    options.trainer.fragment_count = 1 + int64_t(below(3));
    options.trainer.chunk_count = 1 + int64_t(below(9));
    options.trainer.block_count = 1 + int64_t(below(uint64_t(options.trainer.chunk_count)));
    options.trainer.step_time = milliseconds(100 + below(300));
    options.trainer.overlap_steps_max = below(3 * options.trainer.steps_per_round);
    options.trainer.apply_time = milliseconds(below(2) * below(1000));  // With tau, it comes late.
    options.trainer.padding_bytes = 8 * int64_t(below(4));
    options.trainer.result_padding_bytes = 8 * int64_t(below(4));
    options.network.work_time_max = milliseconds(chance(0.2) ? 1000 : below(40));
    options.coordinator.start_members = 1 + int64_t(below(uint64_t(node_count_)));
    options.coordinator.members_min = 1 + int64_t(below(2));
    // Here a new coordinator may well begin with the node whose memory is oldest.
    options.coordinator.adopt_newer = true;
    options.network.latency_max = milliseconds(20 + below(150));
    options.network.jitter = milliseconds(below(100));
    options.network.bytes_per_second = chance(0.3) ? 20e3 : 10e6;
    return options;
  }

  void start() {
    cluster_.start_coordinator();
    for (HostId node = 1; node <= node_count_; ++node) {
      if (node == 1 || chance(0.7)) cluster_.start_node(node);
    }
  }

  void do_harm() {
    const HostId node = any_node();
    switch (below(10)) {
      case 0:
      case 1:
        return crash_or_start(node);
      case 2:
        return freeze(any_host());
      case 3:
        return cut(any_host(), any_host());
      case 4:
        return cluster_.world.break_links(any_host(), any_host());
      case 5:
        if (chance(0.5)) crash_or_start_coordinator();
        return;
      case 6:
        cluster_.world.set_connect_failure_chance(chance(0.5) ? 0.4 : 0);
        return;
      case 7:
        if (cluster_.is_running(node)) cluster_.node(node).spoil_contributions(1);
        return;
      case 8:
        if (cluster_.is_running(node)) cluster_.node(node).withdraw();
        return;
      default:
        return crash_at_message();
    }
  }

  void crash_or_start(HostId node) {
    if (cluster_.is_running(node)) {
      cluster_.crash_node(node, chance(0.3));
    } else {
      cluster_.start_node(node, chance(0.2) ? Cluster::Memory::kLost : Cluster::Memory::kKept);
    }
  }

  void crash_or_start_coordinator() {
    if (cluster_.world.is_on(kCoordinatorHost)) {
      cluster_.crash_coordinator();
    } else {
      cluster_.start_coordinator();
    }
  }

  void freeze(HostId host) {
    if (!cluster_.world.is_on(host)) return;
    cluster_.world.freeze(host);
    cluster_.world.after(milliseconds(below(12000)), [this, host] { cluster_.world.thaw(host); });
  }

  void cut(HostId a, HostId b) {
    if (a == b) return;
    cluster_.world.cut(a, b);
    cluster_.world.after(milliseconds(below(20000)), [this, a, b] { cluster_.world.heal(a, b); });
  }

  // The moments of the protocol are short: hit one of them.
  void crash_at_message() {
    constexpr MessageType kTypes[] = {
        MessageType::kOpen,   MessageType::kReown,  MessageType::kCommit, MessageType::kDone,
        MessageType::kChunk,  MessageType::kWant,   MessageType::kStart,  MessageType::kCatchUp,
        MessageType::kSynced, MessageType::kApplied};
    const MessageType type = kTypes[below(std::size(kTypes))];
    const auto before = cluster_.world.on_delivery;
    auto countdown = std::make_shared<int64_t>(1 + int64_t(below(6)));
    const bool is_sender = chance(0.5);
    cluster_.world.on_delivery = [=, this](HostId from, HostId to, Message& message) {
      before(from, to, message);
      if (message.type != type || --*countdown != 0) return;
      const HostId victim = is_sender ? from : to;
      if (victim != kCoordinatorHost && cluster_.is_running(victim)) cluster_.crash_node(victim);
    };
  }

  void make_good() {
    cluster_.world.set_connect_failure_chance(0);
    cluster_.world.on_delivery = cluster_.first_on_delivery;
    cluster_.world.heal_all();
    for (HostId host = 0; host <= node_count_; ++host) cluster_.world.thaw(host);
    if (!cluster_.world.is_on(kCoordinatorHost)) cluster_.start_coordinator();
    for (HostId node = 1; node <= node_count_; ++node) {
      if (!cluster_.is_running(node)) cluster_.start_node(node);
      cluster_.node(node).spoil_contributions(0);
    }
  }

  base::Random random_;
  int64_t node_count_ = 0;
  Cluster cluster_;
};

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST_CASE("random faults: every commit is right, and in the end everybody gets on") {
  const uint64_t only = number_from_environment("ATOLL_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t count = only != 0 ? 1 : number_from_environment("ATOLL_SEEDS", 300);
  int64_t round_count = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    Chaos chaos(seed);
    const std::string wrong = chaos.run();
    round_count += chaos.round_count();
    INFO("ATOLL_SEED=" << seed);
    REQUIRE(wrong == "");
  }
  // The faults must not be so many that nothing was tested.
  REQUIRE(round_count >= int64_t(5 * count));
}

}  // namespace
}  // namespace net
