// Inputs for the tests of attention: shapes, documents, and tensors on one side of a comparison.
#pragma once

#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "cuda/pair.h"

namespace cuda_test {

struct AttentionCase {
  int64_t B = 1, T = 1, H = 1, K = 1, D = 1;
  int64_t document_mean = 0;        // Positions; the lengths are random. 0: one document per row.
  double deviation = 1;             // Of qkv.
  bool unaligned = false;           // Tensors begin 4 bytes behind a 16-byte address.
  bool unaligned_gradient = false;  // The output's gradient does.

  int64_t qkv_stride() const { return (H + 2 * K) * D; }
  int64_t qkv_count() const { return B * T * qkv_stride(); }
  int64_t out_count() const { return B * T * H * D; }
  std::string describe() const {
    return fmt::format("B {} T {} H {} K {} D {} documents {} deviation {}", B, T, H, K, D,
                       document_mean, deviation);
  }
  // Of every position.
  std::vector<int32_t> document_start() const {
    const auto dice =
        ops_test::random_integers(B * T, 7, int32_t(std::max<int64_t>(1, document_mean)));
    std::vector<int32_t> starts;
    for (int64_t n = 0; n < B * T; ++n) {
      const bool begins = n % T == 0 || (document_mean > 0 && dice[size_t(n)] == 0);
      starts.push_back(begins ? int32_t(n % T) : starts.back());
    }
    return starts;
  }
  int64_t document_count() const {
    const std::vector<int32_t> starts = document_start();
    int64_t count = 0;
    for (int64_t n = 0; n < B * T; ++n) count += starts[size_t(n)] == n % T;
    return count;
  }
  int64_t longest_document() const {
    const std::vector<int32_t> starts = document_start();
    int64_t longest = 0;
    for (int64_t n = 0; n < B * T; ++n) longest = std::max(longest, n % T - starts[size_t(n)] + 1);
    return longest;
  }
};

struct AttentionTensors {
  Tensor qkv, out, lse, document_start, out_gradient, qkv_gradient;

  AttentionTensors(Side& side, const AttentionCase& a, const Values& qkv_values,
                   const Values& out_gradient_values)
      : qkv(compute(side, qkv_values, {a.B * a.T, a.qkv_stride()}, a.unaligned)),
        out(compute_out(side, {a.B * a.T, a.H * a.D}, a.unaligned)),
        lse(side.fp32_out({a.B, a.H, a.T})),
        document_start(side.int32(a.document_start(), {a.B * a.T})),
        out_gradient(compute(side, out_gradient_values, {a.B * a.T, a.H * a.D},
                             a.unaligned || a.unaligned_gradient)),
        qkv_gradient(compute_out(side, {a.B * a.T, a.qkv_stride()}, a.unaligned)) {}

  static Tensor compute(Side& side, Values values, const Shape& shape, bool unaligned) {
    if (!unaligned) return side.compute(values, shape);
    values.insert(values.begin(), 2, 0.0);
    return side.compute(values, {shape.element_count() + 2}).slice(2, shape);
  }
  static Tensor compute_out(Side& side, const Shape& shape, bool unaligned) {
    return compute(side,
                   Values(size_t(shape.element_count()), std::numeric_limits<double>::quiet_NaN()),
                   shape, unaligned);
  }

  backend::AttentionForwardArgs forward(const AttentionCase& a) const {
    return {.out = out,
            .lse = lse,
            .qkv = qkv,
            .document_start = document_start,
            .document_count = a.document_count(),
            .longest_document = a.longest_document(),
            .sequence_length = a.T,
            .heads = a.H,
            .kv_heads = a.K,
            .head_size = a.D};
  }
  backend::AttentionBackwardArgs backward(const AttentionCase& a) const {
    return {.qkv_gradient = qkv_gradient,
            .out_gradient = out_gradient,
            .out = out,
            .lse = lse,
            .qkv = qkv,
            .document_start = document_start,
            .document_count = a.document_count(),
            .longest_document = a.longest_document(),
            .sequence_length = a.T,
            .heads = a.H,
            .kv_heads = a.K,
            .head_size = a.D};
  }
};

}  // namespace cuda_test
