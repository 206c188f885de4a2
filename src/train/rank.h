// One rank of a node: a model on one device, its optimiser, and its part of every step. All ranks
// make the same calls, each in its own thread.
#pragma once

#include <vector>

#include "data/loader.h"
#include "train/engine.h"
#include "train/row_share.h"

namespace train {

class Rank {
 public:
  // Allocates everything. Arguments outlive the object.
  Rank(backend::Backend& backend, const RunConfig& config, const MemoryPlan& plan);

  // What a rank knows of a step: its own losses, and what all ranks know alike.
  struct StepPart {
    model::LossSums sums;
    optim::Optimizer::StepReport update;
  };
  // Its rows of `batch`, whose number is the step's.
  StepPart step(const data::Batch& batch);
  int64_t validation_turns(const data::Sampler& sampler, int64_t rows) const;
  model::LossSums validate_turn(const data::Sampler& sampler, int64_t rows, int64_t turn);

  int number() const { return engine.backend.communicator->rank(); }

  Engine engine;
  optim::Optimizer optimizer;

 private:
  model::HostBatch rows_of_turn(const data::Batch& batch, int64_t turn);

  const RowShare share_;
  // A micro-batch that is not full.
  std::vector<int32_t> tokens_, targets_, document_starts_;
};

}  // namespace train
