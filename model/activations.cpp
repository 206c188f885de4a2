#include "model/activations.h"

#include <algorithm>
#include <cmath>

namespace model {

using backend::DType;
using backend::Shape;
using backend::Tensor;

namespace {

// Whether decoding has it too.
enum class Need { kTraining, kAlways };

struct BlockTensor {
  const char* label;
  Tensor BlockActivations::*member;
  DType dtype;
  Shape shape;
  Recompute kept_up_to;  // Every block has its own under this policy and those before it.
  Need need = Need::kAlways;
};

struct SharedTensor {
  const char* label;
  Tensor Activations::*member;
  DType dtype;
  Shape shape;
  Need need = Need::kTraining;
};

int64_t chunk_tokens(const ModelConfig& c, const TransformerOptions& options) {
  return std::min(options.head_chunk_tokens, options.rows * c.sequence_length);
}

std::vector<BlockTensor> block_tensors(const ModelConfig& c, const TransformerOptions& options,
                                       DType compute) {
  using A = BlockActivations;
  const int64_t N = options.rows * c.sequence_length;
  const DType fp32 = DType::kFloat32;
  return {
      {"input", &A::input, compute, {N, c.width}, Recompute::kFull},
      {"rstd1", &A::rstd1, fp32, {N}, Recompute::kGateUp, Need::kTraining},
      {"norm1", &A::norm1, compute, {N, c.width}, Recompute::kNone},
      {"qkv", &A::qkv, compute, {N, c.qkv_width()}, Recompute::kGateUp},
      {"attention", &A::attention, compute, {N, c.query_width()}, Recompute::kGateUp},
      {"lse",
       &A::lse,
       fp32,
       {options.rows, c.heads, c.sequence_length},
       Recompute::kGateUp,
       Need::kTraining},
      {"middle", &A::middle, compute, {N, c.width}, Recompute::kGateUp},
      {"rstd2", &A::rstd2, fp32, {N}, Recompute::kGateUp, Need::kTraining},
      {"norm2", &A::norm2, compute, {N, c.width}, Recompute::kNone},
      {"gate_up", &A::gate_up, compute, {N, 2 * c.feed_forward}, Recompute::kCheap},
      {"swiglu", &A::swiglu, compute, {N, c.feed_forward}, Recompute::kNone},
  };
}

std::vector<SharedTensor> shared_tensors(const ModelConfig& c, const TransformerOptions& options,
                                         DType compute) {
  using A = Activations;
  const int64_t N = options.rows * c.sequence_length;
  const DType fp32 = DType::kFloat32;
  std::vector<SharedTensor> tensors = {
      {"tokens", &A::tokens, DType::kInt32, {N}, Need::kAlways},
      {"targets", &A::targets, DType::kInt32, {N}},
      {"document starts", &A::document_starts, DType::kInt32, {N}},
      {"rope table", &A::rope_table, fp32, {c.sequence_length, c.head_size}},
      {"branch", &A::branch, compute, {N, c.width}, Need::kAlways},
      {"output", &A::output, compute, {N, c.width}, Need::kAlways},
      {"output rstd", &A::output_rstd, fp32, {N}},
      {"output norm", &A::output_norm, compute, {N, c.width}, Need::kAlways},
      {"logits", &A::logits, compute, {chunk_tokens(c, options), c.vocabulary}, Need::kAlways},
      {"loss", &A::loss, fp32, {N}},
      {"z loss", &A::z_loss, fp32, {N}},
      {"loss sum", &A::loss_sum, fp32, {N}},
      {"z loss sum", &A::z_loss_sum, fp32, {N}},
      {"loss totals", &A::loss_totals, fp32, {2}},
      {"next logits", &A::next_logits, fp32, {c.vocabulary}},
      {"residual gradient", &A::residual_gradient, compute, {N, c.width}},
      {"qkv gradient", &A::qkv_gradient, compute, {N, c.qkv_width()}},
      {"attention gradient", &A::attention_gradient, compute, {N, c.query_width()}},
      {"swiglu gradient", &A::swiglu_gradient, compute, {N, c.feed_forward}},
  };
  if (options.weight_gradient_stream)
    tensors.push_back({"middle gradient", &A::middle_gradient, compute, {N, c.width}});
  return tensors;
}

bool is_needed(Need need, Purpose purpose) {
  return purpose == Purpose::kTraining || need == Need::kAlways;
}

// How many copies of it there are.
int64_t copy_count(const BlockTensor& tensor, const ModelConfig& c,
                   const TransformerOptions& options) {
  return options.recompute <= tensor.kept_up_to ? c.layers : 1;
}

int64_t byte_count(DType dtype, const Shape& shape) {
  return shape.element_count() * backend::bytes_per_element(dtype);
}

}  // namespace

Activations allocate_activations(const ModelConfig& config, const TransformerOptions& options,
                                 backend::Device& device, Purpose purpose) {
  const DType compute = device.compute_dtype();
  Activations activations;
  const auto allocate = [&](int64_t bytes, const char* label) -> backend::Buffer& {
    activations.storage.push_back(device.allocate(bytes, std::string("activations: ") + label));
    return *activations.storage.back();
  };

  activations.blocks.resize(size_t(config.layers));
  for (const BlockTensor& t : block_tensors(config, options, compute)) {
    if (!is_needed(t.need, purpose)) continue;
    const int64_t copies = purpose == Purpose::kDecoding ? 1 : copy_count(t, config, options);
    const backend::Buffer& buffer = allocate(copies * byte_count(t.dtype, t.shape), t.label);
    const int64_t element_count = t.shape.element_count();
    const Tensor all = buffer.tensor(t.dtype, {copies, element_count});
    for (int64_t i = 0; i < config.layers; ++i) {
      activations.blocks[size_t(i)].*t.member =
          all.slice(copies == 1 ? 0 : i * element_count, t.shape);
    }
  }
  for (const SharedTensor& t : shared_tensors(config, options, compute)) {
    if (!is_needed(t.need, purpose)) continue;
    activations.*t.member =
        allocate(byte_count(t.dtype, t.shape), t.label).tensor(t.dtype, t.shape);
  }
  activations.norm_gradient = activations.branch;
  if (!options.weight_gradient_stream) activations.middle_gradient = activations.residual_gradient;
  return activations;
}

Activations first_rows(const Activations& all, int64_t rows) {
  const auto cut = [rows](const Tensor& tensor) {
    if (tensor.shape.rank() == 1) return tensor.slice(0, {rows});
    return tensor.slice(0, {rows, tensor.shape[1]});
  };
  Activations some;
  some.tokens = cut(all.tokens);
  some.rope_table = all.rope_table;
  some.branch = cut(all.branch);
  some.output = cut(all.output);
  some.output_norm = cut(all.output_norm);
  some.logits = all.logits;
  for (const BlockActivations& block : all.blocks) {
    some.blocks.push_back({.input = cut(block.input),
                           .norm1 = cut(block.norm1),
                           .qkv = cut(block.qkv),
                           .attention = cut(block.attention),
                           .middle = cut(block.middle),
                           .norm2 = cut(block.norm2),
                           .gate_up = cut(block.gate_up),
                           .swiglu = cut(block.swiglu)});
  }
  return some;
}

std::vector<float> make_rope_table(const ModelConfig& c) {
  const int64_t half = c.head_size / 2;
  std::vector<float> table(size_t(c.sequence_length * c.head_size));
  std::vector<double> frequencies;
  for (int64_t j = 0; j < half; ++j) frequencies.push_back(rope_frequency(c, j));
  for (int64_t t = 0; t < c.sequence_length; ++t) {
    float* row = table.data() + t * c.head_size;
    for (int64_t j = 0; j < half; ++j) {
      const double angle = double(t) * frequencies[size_t(j)];
      row[j] = float(std::cos(angle));
      row[half + j] = float(std::sin(angle));
    }
  }
  return table;
}

int64_t planned_activation_bytes(const ModelConfig& config, const TransformerOptions& options,
                                 DType compute_dtype) {
  int64_t bytes = 0;
  for (const BlockTensor& t : block_tensors(config, options, compute_dtype)) {
    bytes += copy_count(t, config, options) * byte_count(t.dtype, t.shape);
  }
  for (const SharedTensor& t : shared_tensors(config, options, compute_dtype)) {
    bytes += byte_count(t.dtype, t.shape);
  }
  return bytes;
}

}  // namespace model
