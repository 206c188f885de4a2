// DiLoCo reduces to data parallelism: with one inner step of SGD, the fp32 codec and plain
// averaging (outer learning rate 1, no momentum), N nodes do what one node does with all their rows
// in one batch. Real coordinator and members over loopback, one thread per node.
#include <mutex>
#include <thread>

#include "data/loader.h"
#include "net/coordinator.h"
#include "net/host.h"
#include "outer/fragments.h"
#include "outer/outer_loop.h"
#include "support/catch.h"
#include "train/node_rig.h"

namespace {

using train_test::NodeRig;
using train_test::relative_difference;

constexpr int64_t kSteps = 5;
constexpr uint64_t kSeed = 7;

const model::ModelConfig kModel = {.vocabulary = 29,
                                   .width = 16,
                                   .layers = 2,
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_size = 4,
                                   .feed_forward = 24,
                                   .sequence_length = 12};
const optim::OptimizerConfig kSgd = {.kind = "sgd",
                                     .learning_rate = 0.1,
                                     .weight_decay = 0.01,
                                     .gradient_norm_max = 0,
                                     .schedule = {.kind = "constant", .warmup_steps = 0}};

// Rows of a step: rows [first, first + count) of one deterministic stream, so that nodes can share
// out what one node has whole.
data::Batch make_batch(int64_t step, int64_t first, int64_t count) {
  const int64_t length = kModel.sequence_length;
  data::Batch batch{.step = step,
                    .tokens = {},
                    .targets = {},
                    .document_starts = {},
                    .target_count = count * length};
  for (int64_t row = first; row < first + count; ++row) {
    base::Random random{uint64_t(step), uint64_t(row)};
    for (int64_t i = 0; i < length; ++i) {
      batch.tokens.push_back(int32_t(random.below(uint64_t(kModel.vocabulary))));
      batch.targets.push_back(int32_t(random.below(uint64_t(kModel.vocabulary))));
      batch.document_starts.push_back(i < 5 ? 0 : 5);
    }
  }
  return batch;
}

train::RunConfig run_config(int64_t rows, int64_t ranks = 1) {
  train::RunConfig config;
  config.seed = int64_t(kSeed);
  config.model = kModel;
  config.training = {.steps = kSteps, .batch_rows = rows, .micro_batch_rows = rows};
  config.optimizer = kSgd;
  config.node.device = "cpu";
  config.node.threads = ranks;
  config.node.ranks = ranks;
  return config;
}

std::vector<float> train_alone(int64_t rows) {
  NodeRig rig(run_config(rows));
  for (int64_t step = 0; step < kSteps; ++step) rig.trainer.step(make_batch(step, 0, rows));
  return rig.parameters();
}

struct Swarm {
  net::CoordinatorOptions options;
  std::unique_ptr<net::Coordinator> coordinator;
  std::unique_ptr<net::Host> host;
};

Swarm start_coordinator(const outer::OuterConfig& outer_config, int64_t members) {
  const auto fragments = outer::make_fragments(model::make_layout(kModel), outer_config.fragments);
  std::vector<int64_t> chunks;
  for (const auto& fragment : fragments)
    chunks.push_back(outer::chunk_count(fragment.element_count));
  Swarm swarm;
  swarm.options = {.run_name = "equivalence",
                   .config = {},
                   .fragment_count = outer_config.fragments,
                   .chunk_counts = chunks,
                   .start_members = members,
                   .members_min = members};
  swarm.coordinator = net::Coordinator::create(swarm.options);
  swarm.host = net::Host::create({.listen = {"127.0.0.1", 0}}, *swarm.coordinator);
  swarm.host->start();
  return swarm;
}

// Trains as one member; `shares[i]` rows belong to node i.
std::vector<float> train_as_member(const outer::OuterConfig& config,
                                   const net::Endpoint& coordinator, int64_t index,
                                   const std::vector<int64_t>& shares) {
  NodeRig rig(run_config(shares[size_t(index)]));
  int64_t first = 0;
  for (int64_t i = 0; i < index; ++i) first += shares[size_t(i)];
  base::ThreadPool pool(1);
  const auto state = outer::OuterState::create(config, rig.layout(), rig.masters, pool);
  const auto swarm = net::Swarm::join({.listen = {"127.0.0.1", 0}},
                                      {.run_name = "equivalence",
                                       .config = {},
                                       .node_name = fmt::format("node-{}", index),
                                       .node_key = uint64_t(index) + 1,
                                       .coordinator = coordinator,
                                       .advertise = {}},
                                      *state, state->states(), 0);
  const auto loop =
      outer::OuterLoop::create({.config = config, .steps_total = kSteps}, *state, *swarm);
  const auto never = [] { return false; };
  REQUIRE(loop->join(false, never).has_value());
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto report = rig.trainer.step(make_batch(step, first, shares[size_t(index)]));
    const auto outcome = loop->after_step(uint64_t(step) + 1, report.tokens, report.loss, never);
    REQUIRE(int64_t(outcome.rounds.size()) == config.fragments);
    rig.ranks.run([](train::Rank& rank) { rank.engine.parameters.masters_changed(); });
  }
  loop->leave("done");
  return rig.parameters();
}

void compare(const std::vector<int64_t>& shares, int64_t fragments) {
  const outer::OuterConfig config = {
      .inner_steps = 1, .fragments = fragments, .learning_rate = 1, .momentum = 0, .codec = "fp32"};
  const auto swarm = start_coordinator(config, int64_t(shares.size()));
  std::vector<std::vector<float>> results(shares.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < shares.size(); ++i)
    threads.emplace_back([&, i] {
      results[i] = train_as_member(config, swarm.host->listening_on(), int64_t(i), shares);
    });
  for (auto& thread : threads) thread.join();
  int64_t rows = 0;
  for (const int64_t share : shares) rows += share;
  const auto alone = train_alone(rows);
  for (const auto& result : results) {
    REQUIRE(result == results[0]);
    REQUIRE(relative_difference(result, alone) < 1e-6);
  }
  NodeRig untrained(run_config(1));
  REQUIRE(relative_difference(alone, untrained.parameters()) > 1e-3);
}

}  // namespace

TEST_CASE("Two nodes with one SGD step per round are one node with twice the batch") {
  compare({2, 2}, 1);
}

TEST_CASE("Nodes with unequal batches count by tokens") {
  compare({1, 3}, 1);
}

TEST_CASE("The same with the model in several fragments") {
  compare({2, 1, 1}, 4);
}
