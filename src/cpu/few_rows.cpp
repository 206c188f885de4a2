#include "cpu/few_rows.h"

#include <algorithm>
#include <cstring>

#include "cpu/vector_math.h"

namespace cpu {
namespace {

constexpr int64_t kWidth = 8;
using Vector [[gnu::vector_size(kWidth * sizeof(float))]] = float;

Vector load(const float* address) {
  Vector vector;
  std::memcpy(&vector, address, sizeof(vector));
  return vector;
}

// A block of M rows of a with R rows of b. M * R sums in registers: enough that no addition waits
// for the one before it.
template <int M, int R>
void multiply_block(const FewRowsProduct& p, int64_t row, int64_t column) {
  const float* const a = p.a + row * p.a_stride;
  const float* const b = p.b + column * p.b_stride;
  Vector sums[M][R] = {};
  int64_t j = 0;
  for (; j + kWidth <= p.k; j += kWidth) {
    Vector x[M];
    for (int m = 0; m < M; ++m) x[m] = load(a + m * p.a_stride + j);
    for (int r = 0; r < R; ++r) {
      const Vector y = load(b + r * p.b_stride + j);
      for (int m = 0; m < M; ++m) sums[m][r] += x[m] * y;
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) {
      const Vector& s = sums[m][r];
      float sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
      for (int64_t i = j; i < p.k; ++i) sum += a[m * p.a_stride + i] * b[r * p.b_stride + i];
      p.out[(row + m) * p.out_stride + column + r] = sum;
    }
  }
}

// All rows of a with R rows of b, which stay in the nearest cache.
template <int R>
void multiply_columns(const FewRowsProduct& p, int64_t column) {
  int64_t row = 0;
  for (; row + 4 <= p.m; row += 4) multiply_block<4, R>(p, row, column);
  if (row + 2 <= p.m) {
    multiply_block<2, R>(p, row, column);
    row += 2;
  }
  if (row < p.m) multiply_block<1, R>(p, row, column);
}

void add_scaled_row(float* out, const float* in, float factor, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) out[i] += factor * in[i];
}

}  // namespace

void multiply_few_rows(const FewRowsProduct& p) {
  // With one row of a, four of b at a time keep additions apart; with four, two do.
  const bool is_one = p.m == 1;
  const int64_t step = is_one ? 4 : 2;
  int64_t column = 0;
  for (; column + step <= p.n; column += step) {
    if (is_one) {
      multiply_block<1, 4>(p, 0, column);
    } else {
      multiply_columns<2>(p, column);
    }
  }
  for (; column < p.n; ++column) multiply_columns<1>(p, column);
}

void add_few_rows(const FewRowsProduct& p) {
  for (int64_t j = 0; j < p.k; ++j) {
    for (int64_t row = 0; row < p.m; ++row) {
      add_scaled_row(p.out + row * p.out_stride, p.b + j * p.b_stride, p.a[row * p.a_stride + j],
                     p.n);
    }
  }
}

}  // namespace cpu
