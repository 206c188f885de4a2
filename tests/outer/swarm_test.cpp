// Whole nodes in one process: a coordinator and members with their own threads over loopback
// sockets, with trainers that add a constant to every parameter. Weights and constants are such
// that all arithmetic is exact in fp32, so that the outer parameters are compared with an oracle in
// double precision without a tolerance. No clock decides anything: deadlines are far away, and
// where nodes must wait for each other they meet. They do so after joining, because the coordinator
// activates members one by one and those that are active do not wait for the next.
#include "net/swarm.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "fixture.h"
#include "net/coordinator.h"
#include "outer/outer_loop.h"
#include "support/catch.h"

using namespace outer;
using namespace outer::testing;

namespace {

constexpr int64_t kInnerSteps = 3;
const std::function<bool()> kNeverStop = [] { return false; };
constexpr auto kPatience =
    std::chrono::seconds(40);  // A failure then ends the test instead of hanging it.

OuterConfig exact_config(int64_t fragments) {
  OuterConfig config;
  config.inner_steps = kInnerSteps;
  config.fragments = fragments;
  config.codec = "fp32";
  config.learning_rate = 0.5;
  config.momentum = 0.5;
  return config;
}

shard::Layout test_layout() {
  return make_layout({9000, 20'000, 5000});
}

float start_value(int64_t element) {
  return float(element % 32);
}

// Nobody goes on before all are there; if one never comes, the others fail.
class Meeting {
 public:
  explicit Meeting(int expected) : missing_(expected) {}
  void wait() {
    std::unique_lock lock(mutex_);
    --missing_;
    changed_.notify_all();
    if (!changed_.wait_for(lock, kPatience, [&] { return missing_ <= 0; })) {
      throw base::resource_lost("somebody did not come to a meeting");
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int missing_;
};

class TestCoordinator {
 public:
  TestCoordinator(const OuterConfig& config, int64_t start_members) {
    net::CoordinatorOptions options;
    options.run_name = "test";
    for (const Fragment& fragment : make_fragments(test_layout(), config.fragments)) {
      options.chunk_counts.push_back(chunk_count(fragment.element_count));
    }
    options.fragment_count = config.fragments;
    options.start_members = start_members;
    options.ready_grace = std::chrono::minutes(5);
    options.start_grace = std::chrono::minutes(5);
    machine_ = net::Coordinator::create(options);
    host_ = net::Host::create({.listen = {"127.0.0.1", 0}}, *machine_);
    host_->start();
  }
  net::Endpoint endpoint() const { return host_->listening_on(); }

 private:
  std::unique_ptr<net::Coordinator> machine_;
  std::unique_ptr<net::Host> host_;  // Last: its thread calls the machine.
};

// What a trainer does, and what it saw.
struct Trainer {
  float step_size = 0;
  int64_t tokens_per_step = 1;
  uint64_t steps_total = 0;
  uint64_t dies_after = 0;                                // Without a word; 0: never.
  std::function<void(uint64_t, OuterLoop&)> before_step;  // With the number of steps done.
  std::function<void()> on_joined;
  uint64_t flips_a_bit_after = 0;  // Of its outer parameters, before that step's round; 0: never.
  int64_t audit_chunks = 0;

  std::map<std::pair<int64_t, uint64_t>, RoundReport> rounds;  // By fragment and round.
  net::PeerId peer = net::kNobody;
  uint64_t first_step = 0;
  bool state_replaced = false;
  int64_t replaced_count = 0;  // Since it joined.
  std::vector<std::vector<float>> outer_parameters;
  std::string failure;
};

// The loop tells the digest of its last round when it looks the next time, not only some time.
void wait_for_last_digest(const Trainer& trainer) {
  if (!trainer.rounds.empty()) trainer.rounds.rbegin()->second.digest.wait();
}

// Between two steps it looks when it waits for samples.
void tell_last_digest(const Trainer& trainer, OuterLoop& loop) {
  wait_for_last_digest(trainer);
  bool has_looked = false;
  (void)loop.wait_for_samples([&] { return std::exchange(has_looked, true); });
}

// As memory that is broken, or an outer step that went wrong.
void flip_a_bit(OuterState& state) {
  auto* const value = const_cast<float*>(&state.outer_parameters(0)[12'345]);
  *value = std::bit_cast<float>(std::bit_cast<uint32_t>(*value) ^ 1u << 20);
}

void run_trainer(Trainer& trainer, const OuterConfig& config, const net::Endpoint& coordinator,
                 uint64_t node_key) {
  TestNode node(config, test_layout(), start_value);
  const auto swarm = net::Swarm::join({.listen = {"127.0.0.1", 0}},
                                      {.run_name = "test",
                                       .node_name = fmt::format("node{}", node_key),
                                       .node_key = node_key,
                                       .coordinator = coordinator,
                                       .audit_chunks = trainer.audit_chunks},
                                      *node.state, node.state->states(), 0);
  const auto loop = OuterLoop::create({.config = config,
                                       .steps_total = int64_t(trainer.steps_total),
                                       .join_timeout = kPatience,
                                       .round_patience = kPatience},
                                      *node.state, *swarm);
  const auto entry = loop->join(false, kNeverStop);
  trainer.peer = entry->peer;
  trainer.first_step = entry->step;
  trainer.state_replaced = entry->state_replaced;
  if (trainer.on_joined) trainer.on_joined();
  for (uint64_t step = entry->step; step < trainer.steps_total;) {
    if (trainer.before_step) trainer.before_step(step, *loop);
    for (auto& unit : node.local.units) {
      for (float& value : unit) value += trainer.step_size;
    }
    ++step;
    if (step == trainer.dies_after) return;
    if (step == trainer.flips_a_bit_after) flip_a_bit(*node.state);
    const StepOutcome outcome = loop->after_step(step, trainer.tokens_per_step, 1.0, kNeverStop);
    trainer.replaced_count += outcome.state_replaced;
    if (outcome.lost) throw base::resource_lost(*outcome.lost);
    for (const RoundReport& round : outcome.rounds) {
      trainer.rounds[{round.fragment, round.round}] = round;
    }
    step = outcome.jump_to_step.value_or(step);
  }
  for (int64_t f = 0; f < config.fragments; ++f) {
    const std::span<const float> outer = node.state->outer_parameters(f);
    trainer.outer_parameters.emplace_back(outer.begin(), outer.end());
  }
  loop->leave("done");
}

std::thread start(Trainer& trainer, const OuterConfig& config, const net::Endpoint& coordinator,
                  uint64_t node_key) {
  return std::thread([&trainer, config, coordinator, node_key] {
    try {
      run_trainer(trainer, config, coordinator, node_key);
    } catch (const std::exception& error) {
      trainer.failure = error.what();
    }
  });
}

// The outer optimiser in double precision for all elements at once: every element moves alike.
struct Oracle {
  double moved = 0;
  double m = 0;
  void round(double mean_progress) {
    const double d = -mean_progress;
    m = 0.5 * m + d;
    moved -= 0.5 * (d + 0.5 * m);
  }
  // Over fewer steps than H: the mean as it is.
  void short_round(double mean_progress) { moved += mean_progress; }
};

void require_outer(const Trainer& trainer, const OuterConfig& config, const Oracle& oracle) {
  const auto fragments = make_fragments(test_layout(), config.fragments);
  for (size_t f = 0; f < fragments.size(); ++f) {
    size_t next = 0;
    for (const int64_t unit : fragments[f].units) {
      const int64_t first = test_layout().unit_offset(unit);
      const int64_t count = test_layout().units[size_t(unit)].element_count;
      for (int64_t i = first; i < first + count; ++i) {
        REQUIRE(trainer.outer_parameters[f][next++] == float(start_value(i) + oracle.moved));
      }
    }
    REQUIRE(next == trainer.outer_parameters[f].size());
  }
}

void require_equal_digests(const Trainer& a, const Trainer& b) {
  for (const auto& [name, round] : a.rounds) {
    const auto other = b.rounds.find(name);
    if (other != b.rounds.end()) REQUIRE(round.digest.get() == other->second.digest.get());
  }
}

}  // namespace

TEST_CASE("three nodes over loopback do exactly what DiLoCo says", "[outer][swarm]") {
  const int64_t fragments = GENERATE(1, 2);
  const OuterConfig config = exact_config(fragments);
  const TestCoordinator coordinator(config, 3);
  Meeting all_joined(3);
  // Weights of a quarter, a quarter and a half.
  std::vector<Trainer> trainers(3);
  trainers[0].step_size = 1;
  trainers[1].step_size = -2;
  trainers[2].step_size = 4;
  trainers[2].tokens_per_step = 2;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 3; ++i) {
    trainers[i].steps_total = 15;
    trainers[i].on_joined = [&] { all_joined.wait(); };
    threads.push_back(start(trainers[i], config, coordinator.endpoint(), i + 1));
  }
  for (std::thread& thread : threads) thread.join();
  for (const Trainer& trainer : trainers) REQUIRE(trainer.failure == "");

  const double progress = 0.25 * 1 + 0.25 * -2 + 0.5 * 4;
  for (const Trainer& trainer : trainers) {
    for (const auto& [name, round] : trainer.rounds) {
      REQUIRE(round.contributed);
      REQUIRE(round.members == std::vector<net::PeerId>{0, 1, 2});
    }
    require_equal_digests(trainer, trainers[0]);
  }
  if (fragments == 1) {
    Oracle oracle;
    for (int round = 0; round < 5; ++round) oracle.round(kInnerSteps * progress);
    for (const Trainer& trainer : trainers) {
      REQUIRE(trainer.rounds.size() == 5);
      require_outer(trainer, config, oracle);
    }
  } else {
    // Fragment 0 after steps 1, 4, 7, 10, 13 and at the end; fragment 1 after 3, 6, 9, 12, 15.
    Oracle first, second;
    first.short_round(progress);
    for (int round = 0; round < 4; ++round) first.round(kInnerSteps * progress);
    first.short_round(2 * progress);
    for (int round = 0; round < 5; ++round) second.round(kInnerSteps * progress);
    for (const Trainer& trainer : trainers) {
      REQUIRE(trainer.rounds.size() == 11);
      REQUIRE(trainer.outer_parameters[0][1] == float(start_value(1) + first.moved));
      REQUIRE(trainer.outer_parameters[1][1] == float(start_value(29'001) + second.moved));
    }
  }
}

TEST_CASE("a node dies without a word and another one joins", "[outer][swarm]") {
  const OuterConfig config = exact_config(1);
  const TestCoordinator coordinator(config, 3);
  std::vector<Trainer> trainers(4);
  Meeting first_joined(3), survivors_at_12(3), newcomer_joined(3);
  for (size_t i = 0; i < 4; ++i) {
    trainers[i].step_size = float(1 << i);
    trainers[i].steps_total = 24;
    trainers[i].on_joined = [&, i] { (i < 3 ? first_joined : newcomer_joined).wait(); };
  }
  trainers[2].tokens_per_step = 2;
  trainers[2].dies_after = 7;
  trainers[3].tokens_per_step = 2;
  for (size_t i = 0; i < 2; ++i) {
    // The survivors have committed step 12. They tell what came of it, as nobody gets in before
    // that is known, and wait there until the newcomer is in: it begins with them, so that the next
    // round waits for it.
    trainers[i].before_step = [&, i](uint64_t step, OuterLoop& loop) {
      if (step != 12) return;
      survivors_at_12.wait();
      tell_last_digest(trainers[i], loop);
      newcomer_joined.wait();
    };
  }

  std::vector<std::thread> threads;
  for (size_t i = 0; i < 3; ++i) {
    threads.push_back(start(trainers[i], config, coordinator.endpoint(), i + 1));
  }
  try {
    survivors_at_12.wait();
  } catch (const base::Error&) {
    // The survivors say why.
  }
  threads.push_back(start(trainers[3], config, coordinator.endpoint(), 4));
  for (std::thread& thread : threads) thread.join();
  for (const Trainer& trainer : trainers) REQUIRE(trainer.failure == "");

  REQUIRE(trainers[3].state_replaced);
  REQUIRE(trainers[3].first_step == 12);
  REQUIRE(trainers[2].rounds.size() == 2);
  REQUIRE(trainers[3].rounds.size() == 4);
  for (const size_t survivor : {0, 1}) {
    REQUIRE(trainers[survivor].rounds.size() == 8);
    for (const Trainer& trainer : trainers) require_equal_digests(trainers[survivor], trainer);
  }
  Oracle oracle;
  for (int round = 1; round <= 2; ++round) oracle.round(3 * (0.25 * 1 + 0.25 * 2 + 0.5 * 4));
  for (int round = 3; round <= 4; ++round) oracle.round(3 * (0.5 * 1 + 0.5 * 2));
  for (int round = 5; round <= 8; ++round) oracle.round(3 * (0.25 * 1 + 0.25 * 2 + 0.5 * 8));
  for (const size_t survivor : {0, 1, 3}) require_outer(trainers[survivor], config, oracle);
}

TEST_CASE("a node whose state differs from the majority's repairs itself", "[outer][swarm]") {
  const OuterConfig config = exact_config(1);
  const TestCoordinator coordinator(config, 3);
  // Who must catch up comes in with the state of step 12 at the latest, which the others have told
  // of when they wait for it.
  Meeting all_joined(3), all_at_13(3);
  std::vector<Trainer> trainers(3);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 3; ++i) {
    trainers[i].step_size = 1;
    trainers[i].steps_total = 30;
    trainers[i].before_step = [&, i](uint64_t step, OuterLoop&) {
      wait_for_last_digest(trainers[i]);
      if (step == 13) all_at_13.wait();
    };
    trainers[i].audit_chunks = 2;  // None of their sums is wrong.
    trainers[i].on_joined = [&] { all_joined.wait(); };
  }
  trainers[1].flips_a_bit_after = 6;
  for (size_t i = 0; i < 3; ++i)
    threads.push_back(start(trainers[i], config, coordinator.endpoint(), i + 1));
  for (std::thread& thread : threads) thread.join();
  for (const Trainer& trainer : trainers) REQUIRE(trainer.failure == "");

  REQUIRE(trainers[0].replaced_count == 0);
  REQUIRE(trainers[1].replaced_count >= 1);
  REQUIRE(trainers[2].replaced_count == 0);
  require_equal_digests(trainers[0], trainers[2]);
  REQUIRE(trainers[0].outer_parameters == trainers[2].outer_parameters);
  REQUIRE(trainers[0].outer_parameters == trainers[1].outer_parameters);
  // The round in which it came about, and none after the repair.
  int unequal = 0;
  for (const auto& [name, round] : trainers[1].rounds) {
    const auto other = trainers[0].rounds.find(name);
    REQUIRE(other != trainers[0].rounds.end());
    unequal += round.digest.get() != other->second.digest.get();
  }
  REQUIRE(unequal == 1);
}
