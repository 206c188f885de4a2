// cuDNN's part in the emulation: an interpreter of the graphs, by the textbook and in double. What
// it says about workspace is shaped like an H100's, but so much larger that small tests come to the
// limits.
#include "cuda/cudnn_graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cuda_bf16.h>
#include <vector>

namespace cuda {
namespace {

using Pass = SdpaShape::Pass;
using Bf16 = __nv_bfloat16;

constexpr int64_t kWorkspaceScale = 1024;

// One head of one entry.
struct Head {
  int64_t length, head_size, qkv_stride, out_stride, kv_gradient_stride;
  const Bf16 *query, *key, *value, *mask;
  Bf16* out;
  const Bf16* out_gradient;
  Bf16* query_gradient;
  float* lse;  // May be null.
  int64_t lse_stride, mask_stride;

  double dot(const Bf16* a, const Bf16* b) const {
    double sum = 0;
    for (int64_t d = 0; d < head_size; ++d)
      sum += double(__bfloat162float(a[d])) * double(__bfloat162float(b[d]));
    return sum;
  }
  double score(int64_t i, int64_t j) const {
    return dot(query + i * qkv_stride, key + j * qkv_stride) / std::sqrt(double(head_size)) +
           (mask ? double(__bfloat162float(mask[i * mask_stride + j])) : 0.0);
  }
  void forward(int64_t i) const {
    std::vector<double> p;
    for (int64_t j = 0; j <= i; ++j) p.push_back(score(i, j));
    const double max = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& x : p) total += x = std::exp(x - max);
    for (int64_t d = 0; d < head_size; ++d) {
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j)
        sum += p[size_t(j)] * double(__bfloat162float(value[j * qkv_stride + d]));
      out[i * out_stride + d] = __float2bfloat16_rn(float(sum / total));
    }
    if (lse) lse[i * lse_stride] = float(max + std::log(total));
  }
  // Adds to the gradients of keys and values, (length, head_size) each.
  void backward(int64_t i, std::vector<double>& key_gradient,
                std::vector<double>& value_gradient) const {
    std::vector<double> sum(static_cast<size_t>(head_size));
    const double delta = dot(out + i * out_stride, out_gradient + i * out_stride);
    for (int64_t j = 0; j <= i; ++j) {
      const double p = std::exp(score(i, j) - double(lse[i * lse_stride]));
      const double slope = p *
                           (dot(out_gradient + i * out_stride, value + j * qkv_stride) - delta) /
                           std::sqrt(double(head_size));
      for (int64_t d = 0; d < head_size; ++d) {
        sum[size_t(d)] += slope * double(__bfloat162float(key[j * qkv_stride + d]));
        key_gradient[size_t(j * head_size + d)] +=
            slope * double(__bfloat162float(query[i * qkv_stride + d]));
        value_gradient[size_t(j * head_size + d)] +=
            p * double(__bfloat162float(out_gradient[i * out_stride + d]));
      }
    }
    for (int64_t d = 0; d < head_size; ++d)
      query_gradient[i * qkv_stride + d] = __float2bfloat16_rn(float(sum[size_t(d)]));
  }
};

class InterpretedSdpa final : public Sdpa {
 public:
  explicit InterpretedSdpa(const SdpaShape& shape) : s_(shape) {}

  int64_t workspace_bytes() const override {
    if (s_.pass != Pass::kBackward) return 0;
    const int64_t heads = s_.entries * s_.heads;
    if (s_.is_deterministic) return kWorkspaceScale * heads * s_.length * s_.length * 2;
    if (s_.is_packed()) return s_.packed_positions * s_.heads * s_.head_size * 4;
    return heads * s_.length * s_.head_size * 16;
  }

  void run(const SdpaBuffers& buffers, cudaStream_t) override {
    use_workspace(buffers);
    for (int64_t entry = 0; entry < s_.entries; ++entry) {
      for (int64_t kv_head = 0; kv_head < s_.kv_heads; ++kv_head) run(buffers, entry, kv_head);
    }
    use_workspace(buffers);
  }

 private:
  // As good as any use: nothing else may lie there, before or after.
  void use_workspace(const SdpaBuffers& buffers) const {
    if (buffers.workspace) std::memset(buffers.workspace, 0xff, size_t(workspace_bytes()));
  }

  void run(const SdpaBuffers& b, int64_t entry, int64_t kv_head) const {
    const int64_t group = s_.heads / s_.kv_heads;
    const Head any = head(b, entry, kv_head * group);
    std::vector<double> key_gradient(size_t(any.length * s_.head_size)),
        value_gradient(key_gradient.size());
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      const Head one = head(b, entry, h);
      for (int64_t i = 0; i < one.length; ++i) {
        if (s_.pass == Pass::kBackward) {
          one.backward(i, key_gradient, value_gradient);
        } else {
          one.forward(i);
        }
      }
    }
    if (s_.pass != Pass::kBackward) return;
    const int64_t at = begin(b.kv_gradient_offsets, entry, s_.kv_gradient_stride);
    store(key_gradient, static_cast<Bf16*>(b.key_gradient) + at + kv_head * s_.head_size);
    store(value_gradient, static_cast<Bf16*>(b.value_gradient) + at + kv_head * s_.head_size);
  }

  void store(const std::vector<double>& values, Bf16* target) const {
    for (size_t n = 0; n < values.size(); ++n) {
      const auto i = int64_t(n) / s_.head_size, d = int64_t(n) % s_.head_size;
      target[i * s_.kv_gradient_stride + d] = __float2bfloat16_rn(float(values[n]));
    }
  }

  int64_t begin(const int64_t* offsets, int64_t entry, int64_t stride) const {
    return s_.is_packed() ? offsets[entry] : entry * s_.length * stride;
  }

  Head head(const SdpaBuffers& b, int64_t entry, int64_t h) const {
    const int64_t kv_head = h / (s_.heads / s_.kv_heads);
    const int64_t qkv = begin(b.qkv_offsets, entry, s_.qkv_stride);
    const int64_t out = begin(b.out_offsets, entry, s_.out_stride) + h * s_.head_size;
    const auto part = [&](const void* data, int64_t at) {
      return data ? const_cast<Bf16*>(static_cast<const Bf16*>(data)) + at : nullptr;
    };
    Head head{.length = s_.is_packed() ? b.lengths[entry] : s_.length,
              .head_size = s_.head_size,
              .qkv_stride = s_.qkv_stride,
              .out_stride = s_.out_stride,
              .kv_gradient_stride = s_.kv_gradient_stride,
              .query = part(b.query, qkv + h * s_.head_size),
              .key = part(b.key, qkv + kv_head * s_.head_size),
              .value = part(b.value, qkv + kv_head * s_.head_size),
              .mask = part(b.mask, entry * s_.length * s_.mask_stride),
              .out = part(b.out, out),
              .out_gradient = part(b.out_gradient, out),
              .query_gradient = part(b.query_gradient, qkv + h * s_.head_size),
              .lse = nullptr,
              .lse_stride = s_.is_packed() ? s_.lse_stride : 1,
              .mask_stride = s_.mask_stride};
    CHECK(head.length <= s_.length, "an entry of {} positions in a graph for {}", head.length,
          s_.length);
    if (s_.pass != Pass::kEvaluation) {
      head.lse =
          b.lse + (s_.is_packed() ? b.lse_offsets[entry] + h : (entry * s_.heads + h) * s_.length);
    }
    return head;
  }

  const SdpaShape s_;
};

class Interpreter final : public SdpaBuilder {
 public:
  base::Result<std::unique_ptr<Sdpa>> build(const SdpaShape& shape) override {
    if (shape.head_size % 8 != 0) return base::Failure{"the head size is no multiple of 8"};
    if (shape.pass == Pass::kBackward && shape.length == 1)
      return base::Failure{"the backward of single positions is not supported"};
    return std::unique_ptr<Sdpa>(std::make_unique<InterpretedSdpa>(shape));
  }
};

}  // namespace

base::Result<std::unique_ptr<SdpaBuilder>> load_cudnn() {
  return std::unique_ptr<SdpaBuilder>(std::make_unique<Interpreter>());
}

}  // namespace cuda
