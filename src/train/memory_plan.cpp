#include "train/memory_plan.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <numeric>

#include "backend/quantization.h"
#include "base/math.h"

namespace train {
namespace {

using backend::DType;
using Memory = shard::Parameters::Memory;
using model::Recompute;

constexpr std::array kPolicies = {Recompute::kNone, Recompute::kCheap, Recompute::kGateUp,
                                  Recompute::kFull};
constexpr std::array kPolicyNames = {"none", "cheap", "gate_up", "full"};

// What the driver and the libraries keep for themselves, and cuBLASLt's workspace.
constexpr int64_t kContextBytes = 1024 * base::kMiB;

int64_t padded_count(const shard::Layout& layout, int64_t gpus) {
  int64_t count = 0;
  for (size_t u = 0; u < layout.units.size(); ++u)
    count += layout.padded_count(int64_t(u), int(gpus));
  return count;
}

int64_t largest_unit(const shard::Layout& layout, int64_t gpus) {
  int64_t count = 0;
  for (size_t u = 0; u < layout.units.size(); ++u)
    count = std::max(count, layout.padded_count(int64_t(u), int(gpus)));
  return count;
}

int64_t largest_block(const shard::Layout& layout, int64_t gpus) {
  return layout.padded_count(1, int(gpus));
}

// What AdamW keeps, of one GPU: two moments, and in 8 bits their scales.
int64_t moment_bytes(Memory memory, int64_t count) {
  if (memory == Memory::kStandard) return 8 * count;
  const int64_t scales = base::div_ceil(count, backend::kMomentBlock) * int64_t{sizeof(float)};
  return 2 * (count + scales);
}

// Masters, their compute copies, gradients and moments of one GPU.
std::vector<MemoryPlan::Part> parameter_parts(const shard::Layout& layout, const MemoryPlan& plan) {
  const int64_t gpus = plan.machine.gpus;
  const int64_t count = padded_count(layout, gpus);
  const int64_t shard = count / gpus;
  const int64_t compute = backend::bytes_per_element(plan.machine.compute_dtype);
  if (plan.memory == Memory::kLean) {
    return {{"parameters", compute * count},
            {"gradient of one unit", 4 * largest_unit(layout, gpus)}};
  }
  std::vector<MemoryPlan::Part> parts = {{"masters", 4 * shard}, {"gradients", 4 * shard}};
  if (plan.machine.compute_dtype != DType::kFloat32)
    parts.push_back({"compute copy", compute * shard});
  if (gpus == 1) return parts;
  // Two blocks gathered at a time, and the embedding and the head whole.
  const int64_t ends = layout.padded_count(0, int(gpus)) +
                       layout.padded_count(int64_t(layout.units.size()) - 1, int(gpus));
  parts.push_back({"gathered units", compute * (2 * largest_block(layout, gpus) + ends)});
  parts.push_back({"gradients on their way",
                   4 * (2 * largest_block(layout, gpus) + largest_unit(layout, gpus))});
  return parts;
}

model::TransformerOptions transformer_options(const RunConfig& config, Recompute recompute) {
  return {.rows = config.training.micro_batch_rows,
          .recompute = recompute,
          .head_chunk_tokens = config.training.head_chunk_tokens};
}

// The largest of what operations need between their own kernels: attention's backward over packed
// documents keeps its gradients in fp32, those of keys and values for every query head.
int64_t scratch_bytes(const RunConfig& config) {
  const int64_t tokens = config.training.micro_batch_rows * config.model.sequence_length;
  return tokens * 4 * config.model.query_width() * int64_t{sizeof(float)};
}

}  // namespace

int64_t MemoryPlan::bytes_per_gpu() const {
  int64_t sum = 0;
  for (const Part& part : parts) sum += part.bytes;
  return sum;
}

std::string policy_name(Memory memory, Recompute recompute) {
  const std::string name = kPolicyNames[size_t(recompute)];
  return memory == Memory::kLean ? "lean, " + name : name;
}

std::string MemoryPlan::policy() const {
  return policy_name(memory, recompute);
}

std::string MemoryPlan::text() const {
  const auto gib = [](int64_t bytes) { return double(bytes) / double(base::kGiB); };
  std::string text;
  for (const Part& part : parts)
    text += fmt::format("  {:<24}{:>9.2f} GiB\n", part.name, gib(part.bytes));
  text +=
      fmt::format("  {:<24}{:>9.2f} GiB of {:.2f} (recompute {}); {:.2f} GiB on the host\n", "sum",
                  gib(bytes_per_gpu()), gib(machine.bytes_per_gpu), policy(), gib(host_bytes));
  if (!fits()) {
    text += "  does not fit: ";
    text += recompute != Recompute::kFull ? "set training.recompute to auto or full, "
            : memory != Memory::kLean     ? "set node.memory to lean, "
                                          : "";
    text +=
        "use fewer training.micro_batch_rows, a shorter model.sequence_length, or a larger GPU\n";
  }
  return text;
}

MemoryPlan plan_memory(const RunConfig& config, const Machine& machine, Memory memory,
                       Recompute recompute) {
  const shard::Layout layout = model::make_layout(config.model);
  MemoryPlan plan{.machine = machine, .memory = memory, .recompute = recompute};
  plan.parts = parameter_parts(layout, plan);
  // Outer parameters and momentum.
  plan.host_bytes = 8 * layout.element_count();
  const int64_t shard = padded_count(layout, machine.gpus) / machine.gpus;
  if (config.node.offload_moments) {
    plan.host_bytes += machine.gpus * moment_bytes(memory, shard);
  } else {
    plan.parts.push_back({"moments", moment_bytes(memory, shard)});
  }
  const int64_t activations = model::planned_activation_bytes(
      config.model, transformer_options(config, recompute), machine.compute_dtype);
  plan.parts.push_back({"activations", activations});
  plan.parts.push_back({"scratch", scratch_bytes(config)});
  if (machine.compute_dtype == DType::kBfloat16)
    plan.parts.push_back({"CUDA and its libraries", kContextBytes});
  return plan;
}

namespace {

MemoryPlan first_that_fits(const RunConfig& config, const Machine& machine, Memory memory) {
  MemoryPlan plan;
  for (const Recompute recompute : kPolicies) {
    plan = plan_memory(config, machine, memory, recompute);
    if (plan.fits()) break;
  }
  return plan;
}

}  // namespace

MemoryPlan choose_plan(const RunConfig& config, const Machine& machine) {
  const Memory memory = config.node.memory == "lean" ? Memory::kLean : Memory::kStandard;
  const auto* const found =
      std::find(kPolicyNames.begin(), kPolicyNames.end(), config.training.recompute);
  if (found == kPolicyNames.end()) return first_that_fits(config, machine, memory);
  return plan_memory(config, machine, memory, kPolicies[size_t(found - kPolicyNames.begin())]);
}

MemoryPlan best_plan(const RunConfig& config, const Machine& machine) {
  MemoryPlan plan = first_that_fits(config, machine, Memory::kStandard);
  if (!plan.fits() && machine.gpus == 1) plan = first_that_fits(config, machine, Memory::kLean);
  return plan;
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
  const auto tokens = double(config.training.micro_batch_rows * m.sequence_length);
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
  const double parameters = double(model::parameter_count(m)) / double(plan.machine.gpus);
  const double update =
      parameters * (config.node.offload_moments ? moments / kBus : update_bytes / kMemory);
  // Rows of a step are shared among the GPUs; a lean step is one micro-batch.
  const double rows_at_once = double(config.training.micro_batch_rows) * double(plan.machine.gpus);
  const double micro_batches = is_lean ? 1 : double(config.training.batch_rows) / rows_at_once;
  return micro_batches * micro_batch + update;
}

}  // namespace train
