// Products of a few rows with a large matrix, as when a model writes a token at a time: bound by
// the memory that the matrix is read from, so it is read once, and nothing is packed as OpenBLAS
// does.
#pragma once

#include <cstdint>

namespace cpu {

// Up to so many rows this is faster than OpenBLAS.
inline constexpr int64_t kFewRows = 16;

// out = a b'.  a (m, k), b (n, k), out (m, n); strides are numbers from one row to the next.
struct FewRowsProduct {
  const float* a;
  int64_t a_stride, m;
  const float* b;
  int64_t b_stride, n;
  int64_t k;
  float* out;
  int64_t out_stride;
};
void multiply_few_rows(const FewRowsProduct& product);

// out += a b.  a (m, k), b (k, n), out (m, n).
void add_few_rows(const FewRowsProduct& product);

}  // namespace cpu
