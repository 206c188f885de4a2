// RMSNorm with the residual addition fused in, forward and backward. One row at a time stays in the
// first-level cache, so that each tensor moves through memory once.
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/vector_math.h"

namespace cpu {

using backend::RmsnormBackwardArgs;
using backend::RmsnormForwardArgs;
using backend::Stream;

namespace {

void add_rows(const float* in, const float* delta, float* sum, int64_t count) {
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) sum[c] = in[c] + delta[c];
}

VECTOR_LOOP float squares_of(const float* in, int64_t count) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < count; ++c) squares += in[c] * in[c];
  return squares;
}

VECTOR_LOOP float dot_of_three(const float* a, const float* b, const float* c, int64_t count) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < count; ++i) dot += a[i] * b[i] * c[i];
  return dot;
}

void scale(const float* in, const float* weight, float factor, float* out, int64_t count) {
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) out[c] = in[c] * factor * weight[c];
}

// One row of the backward; `residual` may be null. weight_sum += dy * x * rstd.
struct BackwardRow {
  const float *dy, *x, *weight, *residual;
  float *dx, *weight_sum, *out;
  float rstd;
};

void backward_row(const BackwardRow& row, int64_t count) {
  const float dot = dot_of_three(row.dy, row.weight, row.x, count);
  const float rstd = row.rstd;
  const float pull = rstd * rstd * dot / float(count);
  if (row.residual) {
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) {
      row.dx[c] = row.residual[c] + rstd * (row.dy[c] * row.weight[c] - row.x[c] * pull);
    }
  } else {
#pragma omp simd
    for (int64_t c = 0; c < count; ++c)
      row.dx[c] = rstd * (row.dy[c] * row.weight[c] - row.x[c] * pull);
  }
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) row.weight_sum[c] += row.dy[c] * (row.x[c] * rstd);
  if (row.out) scale(row.x, row.weight, rstd, row.out, count);
}

}  // namespace

void CpuOps::rmsnorm_forward(const RmsnormForwardArgs& args, Stream&) {
  const int64_t width = args.weight.element_count();
  const int64_t rows = args.in.element_count() / width;
  CHECK(args.in.element_count() == rows * width && args.out.element_count() == rows * width);
  CHECK(!args.delta || args.delta.element_count() == rows * width);
  CHECK(!args.delta || args.residual_out.element_count() == rows * width);
  CHECK(!args.rstd || args.rstd.element_count() == rows);
  const float* in = args.in.as<float>();
  const float* delta = args.delta ? args.delta.as<float>() : nullptr;
  const float* weight = args.weight.as<float>();
  float* residual_out = args.residual_out ? args.residual_out.as<float>() : nullptr;
  float* out = args.out.as<float>();
  float* rstd = args.rstd ? args.rstd.as<float>() : nullptr;

  workers_.for_pieces(rows, rows_per_piece(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * width;
      const float* x = in + at;
      if (delta) {
        add_rows(in + at, delta + at, residual_out + at, width);
        x = residual_out + at;
      } else if (residual_out && residual_out != in) {
        std::copy_n(x, width, residual_out + at);
      }
      const float factor = 1.0f / std::sqrt(squares_of(x, width) / float(width) + args.epsilon);
      if (rstd) rstd[row] = factor;
      scale(x, weight, factor, out + at, width);
    }
  });
}

void CpuOps::rmsnorm_backward(const RmsnormBackwardArgs& args, Stream&) {
  const int64_t width = args.weight.element_count();
  const int64_t rows = args.in.element_count() / width;
  CHECK(args.in.element_count() == rows * width &&
        args.out_gradient.element_count() == rows * width);
  CHECK(args.in_gradient.element_count() == rows * width && args.rstd.element_count() == rows);
  CHECK(args.weight_gradient.element_count() == width);
  CHECK(!args.residual_gradient || args.residual_gradient.element_count() == rows * width);
  CHECK(!args.out || args.out.element_count() == rows * width);
  const float* dy = args.out_gradient.as<float>();
  const float* x = args.in.as<float>();
  const float* residual = args.residual_gradient ? args.residual_gradient.as<float>() : nullptr;
  const float* rstd = args.rstd.as<float>();
  float* dx = args.in_gradient.as<float>();
  float* out = args.out ? args.out.as<float>() : nullptr;

  // Every piece sums its rows' part of the weight gradient apart; the parts are added in the order
  // of the pieces.
  constexpr int64_t kPieceRows = 128;
  const int64_t part_stride = base::round_up(width, 16);
  float* parts = workers_.shared_scratch(base::div_ceil(rows, kPieceRows) * part_stride);
  workers_.for_pieces(rows, kPieceRows, [&](int64_t begin, int64_t end, int) {
    float* part = parts + begin / kPieceRows * part_stride;
    std::fill_n(part, width, 0.0f);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * width;
      backward_row({.dy = dy + at,
                    .x = x + at,
                    .weight = args.weight.as<float>(),
                    .residual = residual ? residual + at : nullptr,
                    .dx = dx + at,
                    .weight_sum = part,
                    .out = out ? out + at : nullptr,
                    .rstd = rstd[row]},
                   width);
    }
  });
  float* weight_gradient = args.weight_gradient.as<float>();
  for (int64_t begin = 0; begin < rows; begin += kPieceRows) {
    const float* part = parts + begin / kPieceRows * part_stride;
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) weight_gradient[c] += part[c];
  }
}

}  // namespace cpu
