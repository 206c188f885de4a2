// Nodes of a swarm in one process, without a network: each trains on its own part of the data, and
// a round is made by hand. For benchmarks of the outer loop's rules.
#pragma once

#include <memory>
#include <vector>

#include "data/loader.h"
#include "outer/fragments.h"
#include "train/node_rig.h"

namespace train_test {

// The model of configs/quickstart.json with half its rows.
inline train::RunConfig small_run(int64_t steps) {
  train::RunConfig config;
  config.model = {.vocabulary = 272,
                  .width = 128,
                  .layers = 4,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_size = 32,
                  .feed_forward = 352,
                  .sequence_length = 128};
  config.training = {.steps = steps, .batch_rows = 4, .micro_batch_rows = 4};
  config.optimizer.learning_rate = 0.004;
  config.optimizer.schedule = {
      .kind = "wsd", .warmup_steps = 30, .stable_steps = steps * 2 / 3, .total_steps = steps};
  config.node.device = "cpu";
  config.node.ranks = config.node.threads = 1;
  return config;
}

inline constexpr int64_t kSmallVocabulary = 272, kSmallSequence = 128;

struct OuterNode {
  // Trains on part `part` of the run's data.
  OuterNode(const train::RunConfig& config, const data::Sampler& sampler, int64_t part)
      : rig(config),
        state(outer::OuterState::create(config.outer, rig.layout(), rig.masters, pool)),
        loader(sampler, {.rows = config.training.batch_rows}) {
    const int64_t count = config.training.steps * config.training.batch_rows;
    loader.add({part * count, count});
  }
  void step(int64_t step) {
    data::Batch batch = loader.next();
    batch.step = step - 1;
    rig.trainer.step(batch);
  }
  void masters_changed() { rig.ranks.first().engine.parameters.masters_changed(); }

  NodeRig rig;
  base::ThreadPool pool{1};
  std::unique_ptr<outer::OuterState> state;
  data::Loader loader;
};

// All freeze the fragment, and what their round after `step` comes to.
inline net::Committed make_round(const std::vector<std::unique_ptr<OuterNode>>& nodes, int64_t f,
                                 int64_t step) {
  const auto part = [](net::PeerId peer, net::Bytes bytes, int64_t offset) {
    return net::FragmentStore::Part{
        .peer = peer, .weight_tokens = 1, .bytes = std::move(bytes), .offset = offset};
  };
  outer::OuterState& first = *nodes[0]->state;
  net::Committed commit{.fragment = f};
  commit.round = first.version(f) + 1;
  commit.step = uint64_t(step);
  commit.contributed = true;
  for (auto& node : nodes) node->state->freeze(f);
  for (int64_t chunk = 0; chunk < first.chunk_count(f); ++chunk) {
    std::vector<net::FragmentStore::Part> parts;
    for (size_t n = 0; n < nodes.size(); ++n) {
      parts.push_back(
          part(net::PeerId(n), nodes[n]->state->contribution(f, chunk), net::kContributionOffset));
    }
    const auto mean = first.reduce(f, chunk, parts).encoded;
    commit.results.push_back(part(0, std::make_shared<const std::vector<std::byte>>(mean), 0));
    commit.has_ours.push_back(1);
  }
  return commit;
}

}  // namespace train_test
