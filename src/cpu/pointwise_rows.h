// The rotary embedding of one position, for whole rows (pointwise.cpp) and for rows that go into a
// cache (cache.cpp). Internal to its two files, as vector_math.h is.
#pragma once

#include <cstdint>

namespace cpu {
namespace {

// Rotates `heads` heads in place; `sign` is -1 for the inverse.
inline void rotate_heads(float* heads, int64_t head_count, int64_t half, const float* table,
                         float sign) {
  const float* cosines = table;
  const float* sines = table + half;
  for (int64_t head = 0; head < head_count; ++head) {
    float* low = heads + head * 2 * half;
    float* high = low + half;
#pragma omp simd
    for (int64_t j = 0; j < half; ++j) {
      const float sine = sign * sines[j];
      const float x = low[j], y = high[j];
      low[j] = x * cosines[j] - y * sine;
      high[j] = y * cosines[j] + x * sine;
    }
  }
}

}  // namespace
}  // namespace cpu
