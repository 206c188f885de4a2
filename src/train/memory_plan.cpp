#include "train/memory_plan.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <span>

#include "backend/quantization.h"
#include "base/math.h"
#include "train/master_parameters.h"
#include "train/row_share.h"

namespace train {
namespace {

using backend::DType;
using Memory = shard::Parameters::Memory;
using model::Recompute;
using shard::Sharding;

constexpr std::array kPolicies = {Recompute::kNone, Recompute::kCheap, Recompute::kGateUp,
                                  Recompute::kFull};
constexpr std::array kPolicyNames = {"none", "cheap", "gate_up", "full"};
constexpr std::array kShardings = {Sharding::kReplicated, Sharding::kGradients, Sharding::kFull};
constexpr std::array kShardingNames = {"replicated", "gradients", "full"};

// Tokens. The weight gradient of the head runs at 676 TFLOP/s over 8192 tokens and at 499 over
// 1024, predicted for an H100.
constexpr std::array<int64_t, 4> kHeadChunks = {8192, 4096, 2048, 1024};

// What the driver and the libraries keep for themselves on each GPU. Rather too much than too
// little, for any GPU: a plan that is too tight fails only when training starts. Measured on an
// H200, together with the scratch memory, of which 512 MiB were planned: 1148 MiB for 8 blocks of
// the 10B shape, 1380 for all 42 in lean memory.
struct LibraryBytes {
  int64_t context = 512 * base::kMiB;       // CUDA's, with the driver's own kernels.
  int64_t kernels = 64 * base::kMiB;        // Ours.
  int64_t products = 224 * base::kMiB;      // cuBLASLt's kernels, and a workspace.
  int64_t workspace = 32 * base::kMiB;      // Of products, for each stream beyond the first.
  int64_t attention = 224 * base::kMiB;     // cuDNN's kernels, which it compiles for each graph.
  int64_t communicator = 512 * base::kMiB;  // NCCL's buffers; only with several GPUs.

  int64_t sum(int64_t gpus, bool has_side_stream) const {
    return context + kernels + products + attention + (gpus > 1 ? communicator : 0) +
           (has_side_stream ? workspace : 0);
  }
};

// What AdamW keeps, of one GPU: two moments, and in 8 bits their scales.
int64_t moment_bytes(Memory memory, int64_t count) {
  if (memory == Memory::kStandard) return 8 * count;
  const int64_t scales = base::div_ceil(count, backend::kMomentBlock) * int64_t{sizeof(float)};
  return 2 * (count + scales);
}

std::vector<MemoryPlan::Part> parameter_parts(const shard::ParameterBytes& bytes) {
  const MemoryPlan::Part all[] = {{"masters", bytes.masters},
                                  {"gradients", bytes.gradients},
                                  {"compute copies", bytes.compute_copies},
                                  {"whole weights", bytes.whole_weights},
                                  {"whole gradients", bytes.whole_gradients}};
  std::vector<MemoryPlan::Part> parts;
  std::ranges::copy_if(all, std::back_inserter(parts),
                       [](const MemoryPlan::Part& part) { return part.bytes > 0; });
  return parts;
}

// The largest of what operations need between their own kernels: attention's backward over packed
// documents keeps its gradients in fp32, those of keys and values for every query head.
int64_t scratch_bytes(const RunConfig& config, const Machine& machine) {
  const int64_t rows = RowShare::of(config.training, int(machine.gpus)).micro_batch_rows;
  const int64_t tokens = rows * config.model.sequence_length;
  return tokens * 4 * config.model.query_width() * int64_t{sizeof(float)};
}

}  // namespace

int64_t MemoryPlan::bytes_per_gpu() const {
  int64_t sum = 0;
  for (const Part& part : parts) sum += part.bytes;
  return sum;
}

std::string sharding_name(shard::Sharding sharding) {
  return kShardingNames[size_t(sharding)];
}

std::string MemoryPlan::policy() const {
  std::string policy = kPolicyNames[size_t(recompute)];
  if (memory == Memory::kLean) policy = "lean, " + policy;
  if (machine.gpus > 1) policy += ", sharding " + sharding_name(sharding);
  return policy;
}

model::TransformerOptions transformer_options(const RunConfig& config, const MemoryPlan& plan) {
  return {.rows = RowShare::of(config.training, int(plan.machine.gpus)).micro_batch_rows,
          .recompute = plan.recompute,
          .head_chunk_tokens = plan.head_chunk_tokens,
          .weight_gradient_stream = config.node.weight_gradient_stream};
}

shard::Parameters::Options parameter_options(const MemoryPlan& plan) {
  return {.memory = plan.memory, .sharding = plan.sharding, .lean_gradients = plan.lean_gradients};
}

std::string MemoryPlan::text() const {
  const auto gib = [](int64_t bytes) { return double(bytes) / double(base::kGiB); };
  std::string text;
  for (const Part& part : parts)
    text += fmt::format("  {:<24}{:>9.2f} GiB\n", part.name, gib(part.bytes));
  text += fmt::format(
      "  {:<24}{:>9.2f} GiB of {:.2f} (recompute {}; head in chunks of {} "
      "tokens); {:.2f} GiB on the host\n",
      "sum", gib(bytes_per_gpu()), gib(machine.bytes_per_gpu), policy(), head_chunk_tokens,
      gib(host_bytes));
  if (!fits()) {
    text += "  does not fit: ";
    text += machine.gpus > 1 && sharding != Sharding::kFull ? "set node.sharding to auto or full, "
            : recompute != Recompute::kFull ? "set training.recompute to auto or full, "
            : memory != Memory::kLean && machine.gpus == 1 ? "set node.memory to lean, "
                                                           : "";
    text +=
        "use fewer training.micro_batch_rows, a shorter model.sequence_length, or a larger GPU\n";
  }
  return text;
}

MemoryPlan plan_memory(const RunConfig& config, const Machine& machine,
                       const shard::Parameters::Options& options, Recompute recompute) {
  const shard::Layout layout = model::make_layout(config.model);
  MemoryPlan plan{.machine = machine,
                  .memory = options.memory,
                  .sharding = options.sharding,
                  .recompute = recompute,
                  .head_chunk_tokens = config.training.head_chunk_tokens > 0
                                           ? config.training.head_chunk_tokens
                                           : kHeadChunks.back(),
                  .lean_gradients = options.lean_gradients};
  const shard::ParameterBytes parameters =
      shard::planned_bytes(layout, options, int(machine.gpus), machine.compute_dtype);
  plan.parts = parameter_parts(parameters);
  // Outer parameters and momentum, and the results of the last rounds.
  plan.host_bytes = 8 * layout.element_count();
  if (!config.swarm.coordinator.empty()) {
    plan.host_bytes +=
        config.node.results_kept * outer::result_bytes(config.outer, layout.element_count());
  }
  const int64_t master_bytes = backend::bytes_per_element(
      options.memory == Memory::kLean ? machine.compute_dtype : DType::kFloat32);
  const int64_t moments = moment_bytes(options.memory, parameters.masters / master_bytes);
  if (config.node.offload_moments) {
    plan.host_bytes += machine.gpus * moments;
  } else {
    plan.parts.push_back({"moments", moments});
  }
  const int64_t activations = model::planned_activation_bytes(
      config.model, transformer_options(config, plan), machine.compute_dtype);
  plan.parts.push_back({"activations", activations});
  if (machine.compute_dtype == DType::kBfloat16) {
    plan.parts.push_back({"scratch", scratch_bytes(config, machine)});
    plan.parts.push_back({"outer copies", MasterParameters::planned_device_bytes()});
    plan.parts.push_back({"CUDA and its libraries",
                          LibraryBytes{}.sum(machine.gpus, config.node.weight_gradient_stream)});
  }
  return plan;
}

namespace {

// Of all choices the one with this name, or all if it is "auto".
template <class T, size_t kCount>
std::span<const T> named(const std::array<T, kCount>& choices,
                         const std::array<const char*, kCount>& names, const std::string& name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return choices;
  return std::span(choices).subspan(size_t(found - names.begin()), 1);
}

// REQUIRES: `plan` fits. On a CPU nothing runs beside anything.
MemoryPlan with_update_beside(const RunConfig& config, const MemoryPlan& plan) {
  if (plan.memory != Memory::kLean || plan.machine.compute_dtype != DType::kBfloat16) return plan;
  shard::Parameters::Options options = parameter_options(plan);
  options.lean_gradients = 2;
  MemoryPlan beside = plan_memory(config, plan.machine, options, plan.recompute);
  return beside.fits() ? beside : plan;
}

// REQUIRES: `plan` fits, and was made with the smallest chunk.
MemoryPlan with_largest_chunk(const RunConfig& config, const MemoryPlan& plan) {
  if (config.training.head_chunk_tokens > 0) return plan;
  RunConfig chosen = config;
  for (const int64_t chunk : kHeadChunks) {
    chosen.training.head_chunk_tokens = chunk;
    MemoryPlan larger = plan_memory(chosen, plan.machine, parameter_options(plan), plan.recompute);
    if (larger.fits()) return larger;
  }
  return plan;
}

}  // namespace

MemoryPlan choose_plan(const RunConfig& config, const Machine& machine) {
  const Memory memory = config.node.memory == "lean" ? Memory::kLean : Memory::kStandard;
  MemoryPlan plan;
  for (const Recompute recompute : named(kPolicies, kPolicyNames, config.training.recompute)) {
    for (const Sharding sharding : named(kShardings, kShardingNames, config.node.sharding)) {
      plan = plan_memory(config, machine, {.memory = memory, .sharding = sharding}, recompute);
      if (plan.fits()) return with_largest_chunk(config, with_update_beside(config, plan));
    }
  }
  return plan;
}

MemoryPlan plan_of_node(const RunConfig& config, const Machine& machine) {
  if (machine.compute_dtype == DType::kBfloat16) return choose_plan(config, machine);
  RunConfig modest = config;
  if (config.training.recompute == "auto") modest.training.recompute = "cheap";
  if (config.node.sharding == "auto") modest.node.sharding = "full";
  if (config.training.head_chunk_tokens == 0)
    modest.training.head_chunk_tokens = kHeadChunks.back();
  return choose_plan(modest, machine);
}

MemoryPlan best_plan(const RunConfig& config, const Machine& machine) {
  RunConfig chosen = config;
  if (machine.gpus > 1) chosen.node.memory = "standard";
  MemoryPlan plan = choose_plan(chosen, machine);
  if (plan.fits() || machine.gpus > 1) return plan;
  chosen.node.memory = "lean";
  return choose_plan(chosen, machine);
}

// The kernels beside products and attention are counted by the bytes that they move: `row` is the
// residual stream once, `wide` the feed-forward width once.
double predict_step_seconds(const RunConfig& config, const MemoryPlan& plan) {
  constexpr double kProducts = 660e12;  // FLOP/s.
  constexpr double kAttentionForward = 620e12, kAttentionBackward = 520e12;
  constexpr double kMemory = 2.9e12;     // Bytes/s.
  constexpr double kBus = 50e9;          // Bytes/s in each direction, PCIe 5.
  constexpr double kGapSeconds = 50e-6;  // Per block.
  const model::ModelConfig& m = config.model;
  const RowShare share = RowShare::of(config.training, int(plan.machine.gpus));
  const auto tokens = double(share.micro_batch_rows * m.sequence_length);
  const double gate_up = 2.0 * tokens * double(m.width) * double(2 * m.feed_forward);
  const double products =
      2.0 * tokens * double(m.width) * double(m.qkv_width() + m.query_width() + 3 * m.feed_forward);
  const double attention =
      2.0 * tokens * double(m.sequence_length) * double(m.query_width());  // Causal: half of 4.
  const double row = tokens * double(m.width) * 2, wide = tokens * double(m.feed_forward) * 2;
  const double qk = tokens * double(m.query_width() + m.kv_heads * m.head_size) * 2;
  const double forward_bytes = 8 * row + 2 * qk + 3 * wide;
  // What is made again is written once more.
  const bool keeps_all = plan.recompute == Recompute::kNone;
  const double backward_bytes = (keeps_all ? 10 : 14) * row + 2 * qk + (keeps_all ? 5 : 6) * wide;

  const double forward =
      products / kProducts + attention / kAttentionForward + forward_bytes / kMemory;
  double block = forward + 2 * products / kProducts + 2.5 * attention / kAttentionBackward +
                 backward_bytes / kMemory + kGapSeconds;
  if (plan.recompute == Recompute::kGateUp) block += gate_up / kProducts;
  if (plan.recompute == Recompute::kFull)
    block += forward - 2.0 * tokens * double(m.width) * double(m.feed_forward) / kProducts;
  const double logits = tokens * double(m.vocabulary);
  const double head = 6 * logits * double(m.width) / kProducts + 4 * logits / kMemory;
  const double micro_batch = double(m.layers) * block + head;

  // Per parameter: all that AdamW and the gradient's norm move, and of it the moments one way.
  const bool is_lean = plan.memory == Memory::kLean;
  const double update_bytes = is_lean ? 20 : 38, moments = is_lean ? 2 : 8;
  const bool is_replicated = plan.sharding == Sharding::kReplicated;
  const double parameters =
      double(model::parameter_count(m)) / (is_replicated ? 1.0 : double(plan.machine.gpus));
  const double update =
      parameters * (config.node.offload_moments ? moments / kBus : update_bytes / kMemory);
  // A lean step is one micro-batch.
  const double micro_batches = is_lean ? 1 : double(share.turns);
  return micro_batches * micro_batch + update;
}

}  // namespace train
