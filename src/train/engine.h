// A model on a device: backend, layout, parameters and transformer, built in that order and torn
// down in the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "data/sampler.h"
#include "model/transformer.h"
#include "optim/optimizer.h"
#include "shard/parameters.h"
#include "train/memory_plan.h"
#include "train/run_config.h"

namespace train {

// "auto" takes a GPU if there is one. Throws bad_input when the device that was asked for cannot be
// had.
backend::Backend choose_backend(const NodeConfig& node);

optim::MomentPlace moment_place(const NodeConfig& node);

struct Engine {
  Engine(backend::Backend chosen, const model::ModelConfig& model,
         const model::TransformerOptions& options,
         shard::Parameters::Memory memory = shard::Parameters::Memory::kStandard);
  // As the config says. Logs the memory plan of a GPU before anything is allocated there, and
  // throws bad_input with the plan if it does not fit.
  Engine(backend::Backend chosen, const RunConfig& config);

  model::ModelConfig config;
  backend::Backend backend;
  shard::Layout layout;
  shard::Parameters parameters;
  model::Transformer transformer;
  const std::string policy;  // MemoryPlan::policy().

 private:
  Engine(backend::Backend&& chosen, const RunConfig& config, const MemoryPlan& plan);
};

// Mean cross-entropy over at most `rows` held-out rows.
struct Validation {
  double loss = 0;
  int64_t tokens = 0;
};
Validation validate(Engine& engine, const data::Sampler& sampler, int64_t micro_batch_rows,
                    int64_t rows);

}  // namespace train
