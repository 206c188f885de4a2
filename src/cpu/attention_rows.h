// What attention over whole rows (attention.cpp) and over a cache (cache.cpp) have in common: a
// tile of scores, and how it is folded into a running softmax. Internal to its two files, as
// vector_math.h is.
#pragma once

#include <algorithm>
#include <cblas.h>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu/vector_math.h"

namespace cpu {
namespace {

constexpr int64_t kTileKeys = 512;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// A dense matrix inside a larger one.
struct Matrix {
  float* data;
  int64_t stride;
};

// The part of a tile's columns that a query may see; empty if first >= last.
struct Visible {
  int64_t first, last;
};

inline void multiply(CBLAS_TRANSPOSE transpose_a, CBLAS_TRANSPOSE transpose_b, int64_t m, int64_t n,
                     int64_t k, float alpha, Matrix a, Matrix b, float beta, Matrix out) {
  cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, int(m), int(n), int(k), alpha, a.data,
              int(a.stride), b.data, int(b.stride), beta, out.data, int(out.stride));
}

VECTOR_LOOP float max_of(const float* x, int64_t count) {
  float max = kMinusInfinity;
#pragma omp simd reduction(max : max)
  for (int64_t j = 0; j < count; ++j) max = x[j] > max ? x[j] : max;
  return max;
}

// x = e^(x - shift); returns the sum.
VECTOR_LOOP float exp_in_place(float* x, float shift, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < count; ++j) {
    x[j] = exp_fast(x[j] - shift);
    sum += x[j];
  }
  return sum;
}

inline void scale_in_place(float* x, float factor, int64_t count) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) x[j] *= factor;
}

// Turns one row of a tile's scores into unnormalised probabilities and folds the tile into the
// row's running maximum, sum and output.
inline void online_softmax_row(float* scores, Visible visible, int64_t tile_keys, float& max,
                               float& sum, float* out, int64_t D) {
  if (visible.first >= visible.last) {
    std::fill_n(scores, tile_keys, 0.0f);
    return;
  }
  const int64_t count = visible.last - visible.first;
  const float new_max = std::max(max, max_of(scores + visible.first, count));
  if (sum > 0 && new_max > max) {
    const float shrink = std::exp(max - new_max);
    sum *= shrink;
    scale_in_place(out, shrink, D);
  }
  max = new_max;
  std::fill(scores, scores + visible.first, 0.0f);
  sum += exp_in_place(scores + visible.first, new_max, count);
  std::fill(scores + visible.last, scores + tile_keys, 0.0f);
}

}  // namespace
}  // namespace cpu
