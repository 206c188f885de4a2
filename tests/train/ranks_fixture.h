// The config of a small node with several CPU ranks, and batches for it.
#pragma once

#include <string>
#include <vector>

#include "base/hash.h"
#include "train/node_rig.h"

namespace ranks_test {

inline constexpr int64_t kSteps = 6;
inline constexpr int64_t kRows = 12;

inline const std::vector<std::string> kShardings = {"replicated", "gradients", "full"};

inline train::RunConfig run_config(int64_t ranks, const std::string& sharding = "full",
                                   int64_t micro_batch_rows = kRows) {
  train::RunConfig config;
  config.seed = 3;
  // Unit sizes that are no multiples of anything: shards are padded, and tensors are cut.
  config.model = {.vocabulary = 29,
                  .width = 18,
                  .layers = 3,
                  .heads = 3,
                  .kv_heads = 1,
                  .head_size = 6,
                  .feed_forward = 26,
                  .sequence_length = 12};
  config.training = {.steps = kSteps, .batch_rows = kRows, .micro_batch_rows = micro_batch_rows};
  config.optimizer = {.learning_rate = 3e-3,
                      .gradient_norm_max = 0.5,
                      .schedule = {.kind = "constant", .warmup_steps = 2}};
  config.node.device = "cpu";
  config.node.threads = ranks;
  config.node.ranks = ranks;
  config.node.sharding = sharding;
  return config;
}

inline data::Batch make_batch(const train::RunConfig& config, int64_t step) {
  data::Batch batch{
      .step = step, .tokens = {}, .targets = {}, .document_starts = {}, .target_count = 0};
  for (int64_t row = 0; row < config.training.batch_rows; ++row) {
    base::Random random{uint64_t(step), uint64_t(row)};
    for (int64_t i = 0; i < config.model.sequence_length; ++i) {
      batch.tokens.push_back(int32_t(random.below(uint64_t(config.model.vocabulary))));
      // Uncounted targets are spread unevenly over the rows, and so over the ranks.
      const bool is_counted = random.below(12) >= uint64_t(row % 4);
      batch.targets.push_back(
          is_counted ? (batch.tokens.back() + 1) % int32_t(config.model.vocabulary) : -1);
      batch.document_starts.push_back(i < 5 ? 0 : 5);
      batch.target_count += is_counted;
    }
  }
  return batch;
}

// Steps [first, last).
inline std::vector<train::InnerStep> train_steps(train_test::NodeRig& rig, int64_t first,
                                                 int64_t last) {
  std::vector<train::InnerStep> steps;
  for (int64_t step = first; step < last; ++step)
    steps.push_back(rig.trainer.step(make_batch(rig.config, step)));
  return steps;
}

}  // namespace ranks_test
