// A model on one rank's device: layout, parameters and transformer, built in that order and torn
// down in the other.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "data/sampler.h"
#include "model/transformer.h"
#include "optim/optimizer.h"
#include "shard/parameters.h"
#include "train/memory_plan.h"
#include "train/run_config.h"

namespace train {

// One per rank of the node. "auto" takes GPUs if there are any. Throws bad_input when the device
// that was asked for cannot be had.
std::vector<backend::Backend> choose_backends(const NodeConfig& node);

optim::MomentPlace moment_place(const NodeConfig& node);

// What every rank allocates. Logs the plan of GPUs, and throws bad_input with it if it does not
// fit.
MemoryPlan require_plan(const RunConfig& config, const std::vector<backend::Backend>& backends);

struct Engine {
  // `backend` outlives the object.
  Engine(backend::Backend& backend, const model::ModelConfig& model,
         const model::TransformerOptions& options, const shard::Parameters::Options& memory = {});
  Engine(backend::Backend& backend, const RunConfig& config, const MemoryPlan& plan);

  model::ModelConfig config;
  backend::Backend& backend;
  shard::Layout layout;
  shard::Parameters parameters;
  model::Transformer transformer;
};

// Mean cross-entropy.
struct Validation {
  double loss = 0;
  int64_t tokens = 0;
};
inline Validation mean_of(const model::LossSums& sums) {
  return {.loss = sums.count > 0 ? sums.loss / double(sums.count) : 0, .tokens = sums.count};
}

inline void add(model::LossSums& total, const model::LossSums& sums) {
  total.loss += sums.loss;
  total.count += sums.count;
}

// Cross-entropy over at most `rows` held-out rows. In each turn every rank computes a micro-batch
// of `micro_batch_rows`, which are the transformer's; all ranks call it for the same turns.
int64_t validation_turns(const Engine& engine, const data::Sampler& sampler,
                         int64_t micro_batch_rows, int64_t rows);
model::LossSums validate_turn(Engine& engine, const data::Sampler& sampler,
                              int64_t micro_batch_rows, int64_t rows, int64_t turn);
// All turns: this rank's share of the rows.
model::LossSums validate(Engine& engine, const data::Sampler& sampler, int64_t micro_batch_rows,
                         int64_t rows);

}  // namespace train
