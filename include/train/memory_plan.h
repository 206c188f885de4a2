// How much memory a node needs, before anything is allocated, and which of the ways to train it is
// the fastest that fits. All numbers follow from the config; docs/architecture.md tells what they
// leave out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/tensor.h"
#include "model/transformer.h"
#include "shard/parameters.h"
#include "train/run_config.h"

namespace train {

struct Machine {
  int64_t gpus = 1;
  int64_t bytes_per_gpu = 0;
  backend::DType compute_dtype = backend::DType::kBfloat16;
};

struct MemoryPlan {
  Machine machine;
  shard::Parameters::Memory memory = shard::Parameters::Memory::kStandard;
  shard::Sharding sharding = shard::Sharding::kFull;  // Of no meaning for one GPU.
  model::Recompute recompute = model::Recompute::kCheap;
  int64_t head_chunk_tokens = 0;
  int lean_gradients = 1;  // See shard::Parameters::Options.
  struct Part {
    std::string name;
    int64_t bytes = 0;
  };
  std::vector<Part> parts;  // Of one GPU.
  int64_t host_bytes = 0;   // Of the node: the outer state, and moments that are offloaded.

  int64_t bytes_per_gpu() const;
  bool fits() const { return bytes_per_gpu() <= machine.bytes_per_gpu; }
  // "cheap"; "lean, full"; with several GPUs "cheap, sharding full".
  std::string policy() const;
  // For people: a line per part, the sum, and if it does not fit, what to change.
  std::string text() const;
};

// Where training.head_chunk_tokens is 0, with the smallest chunk that is worth it.
MemoryPlan plan_memory(const RunConfig& config, const Machine& machine,
                       const shard::Parameters::Options& options, model::Recompute recompute);

// What the config says. Where training.recompute is auto, as little is made again as fits; where
// node.sharding is, as little is shared out as fits with that. Lean on a GPU the update works
// beside the backward if a second gradient buffer fits then; where the head's chunk is to be
// chosen, it is as large as still fits. If nothing fits, what needs least.
MemoryPlan choose_plan(const RunConfig& config, const Machine& machine);
// What a node takes on this machine: of GPUs as choose_plan(); of a CPU, whose memory is shared
// with whoever else works on it, no more than it needs.
MemoryPlan plan_of_node(const RunConfig& config, const Machine& machine);
// As choose_plan(), with lean memory on one GPU if nothing else fits.
MemoryPlan best_plan(const RunConfig& config, const Machine& machine);

// Seconds of one step of a node whose GPUs reach the rates of an H100 (products 660 TFLOP/s,
// attention 620 forward and 520 backward, memory 2.9 TB/s), with nothing to wait for. A lean step
// is one micro-batch.
double predict_step_seconds(const RunConfig& config, const MemoryPlan& plan);

// How a rank's Parameters and Transformer are made.
shard::Parameters::Options parameter_options(const MemoryPlan& plan);
model::TransformerOptions transformer_options(const RunConfig& config, const MemoryPlan& plan);

// "full", as in node.sharding.
std::string sharding_name(shard::Sharding sharding);

}  // namespace train
