// What the optimiser runs on: the norm of the gradient, clipping, and the updates, each one pass
// over memory.
#include <algorithm>
#include <cmath>

#include "cpu/bfloat16.h"
#include "cpu/cpu_backend.h"
#include "cpu/vector_math.h"

namespace cpu {

using backend::AdamwArgs;
using backend::ClipScaleArgs;
using backend::DType;
using backend::SgdArgs;
using backend::Stream;
using backend::SumOfSquaresArgs;
using backend::Tensor;

namespace {

constexpr int64_t kPieceElements = 16384;

VECTOR_LOOP double sum_of_squares_of(const float* in, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += double(in[i]) * double(in[i]);
  return sum;
}

// Writes the new parameters to `copy` (fp32 or bf16), from `begin` on.
void write_copy(const Tensor& copy, const float* parameter, int64_t begin, int64_t end) {
  if (!copy) return;
  if (copy.dtype == DType::kBfloat16) {
    to_bfloat16(parameter + begin, static_cast<Bfloat16*>(copy.data) + begin, end - begin);
  } else {
    std::copy(parameter + begin, parameter + end, copy.as<float>() + begin);
  }
}

// The constants of one AdamW step: p -= rate * m / (sqrt(v) * v_factor + epsilon) + decay * p. The
// decay is not folded into a factor 1 - decay, which would round most of it away.
struct AdamwStep {
  float gradient_scale, beta1, beta2, rate, v_factor, epsilon, decay;
};

void adamw_range(const AdamwStep& step, const AdamwArgs& args, int64_t begin, int64_t end) {
  float* parameter = args.parameter.as<float>();
  float* m = args.m.as<float>();
  float* v = args.v.as<float>();
  const float* gradient = args.gradient.as<float>();
  const AdamwStep s = step;  // A copy whose address nobody has: the stores below cannot change it.
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i] * s.gradient_scale;
    const float new_m = s.beta1 * m[i] + (1.0f - s.beta1) * g;
    const float new_v = s.beta2 * v[i] + (1.0f - s.beta2) * g * g;
    m[i] = new_m;
    v[i] = new_v;
    parameter[i] -=
        s.rate * new_m / (std::sqrt(new_v) * s.v_factor + s.epsilon) + s.decay * parameter[i];
  }
}

}  // namespace

void CpuOps::sum_of_squares(const SumOfSquaresArgs& args, Stream&) {
  const int64_t count = args.in.element_count();
  const float* in = args.in.as<float>();
  // Two levels: the elements of a piece, then the pieces in order.
  const int64_t piece_count = base::div_ceil(count, kPieceElements);
  double* sums = reinterpret_cast<double*>(workers_.shared_scratch(2 * piece_count));
  workers_.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
    sums[begin / kPieceElements] = sum_of_squares_of(in + begin, end - begin);
  });
  double sum = 0;
  for (int64_t piece = 0; piece < piece_count; ++piece) sum += sums[piece];
  float* out = args.out.as<float>();
  out[0] = (args.accumulate ? out[0] : 0.0f) + float(sum);
}

void CpuOps::clip_scale(const ClipScaleArgs& args, Stream&) {
  const float norm = std::sqrt(args.sum_of_squares.as<float>()[0]);
  args.scale.as<float>()[0] =
      args.norm_max <= 0 ? 1.0f : std::min(1.0f, args.norm_max / (norm + 1e-6f));
}

void CpuOps::adamw(const AdamwArgs& args, Stream&) {
  const int64_t count = args.parameter.element_count();
  CHECK(args.gradient.element_count() == count && args.m.element_count() == count);
  CHECK(args.v.element_count() == count && args.step >= 1);
  CHECK(!args.copy || args.copy.element_count() == count);
  const double m_correction = 1 - std::pow(double(args.beta1), double(args.step));
  const double v_correction = 1 - std::pow(double(args.beta2), double(args.step));
  const AdamwStep step{.gradient_scale = args.gradient_scale.as<float>()[0],
                       .beta1 = args.beta1,
                       .beta2 = args.beta2,
                       .rate = float(args.learning_rate / m_correction),
                       .v_factor = float(1 / std::sqrt(v_correction)),
                       .epsilon = args.epsilon,
                       .decay = args.learning_rate * args.weight_decay};
  workers_.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
    adamw_range(step, args, begin, end);
    write_copy(args.copy, args.parameter.as<float>(), begin, end);
  });
}

void CpuOps::sgd(const SgdArgs& args, Stream&) {
  const int64_t count = args.parameter.element_count();
  CHECK(args.gradient.element_count() == count &&
        (!args.copy || args.copy.element_count() == count));
  const float decay = args.learning_rate * args.weight_decay;
  const float rate = args.learning_rate * args.gradient_scale.as<float>()[0];
  float* parameter = args.parameter.as<float>();
  const float* gradient = args.gradient.as<float>();
  workers_.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) parameter[i] -= rate * gradient[i] + decay * parameter[i];
    write_copy(args.copy, parameter, begin, end);
  });
}

}  // namespace cpu
