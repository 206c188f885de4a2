// What the optimiser runs on: the norm of the gradient, clipping, and the updates, each one pass
// over memory.
#include <algorithm>
#include <cmath>

#include "backend/quantization.h"
#include "cpu/bfloat16.h"
#include "cpu/cpu_backend.h"
#include "cpu/vector_math.h"

namespace cpu {

using backend::AdamwArgs;
using backend::ClipScaleArgs;
using backend::DType;
using backend::kMomentBlock;
using backend::SgdArgs;
using backend::Stream;
using backend::SumArgs;
using backend::SumOfSquaresArgs;
using backend::Tensor;

namespace {

constexpr int64_t kPieceElements = 16384;
static_assert(kPieceElements % kMomentBlock == 0);

VECTOR_LOOP double sum_of(const float* in, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += double(in[i]);
  return sum;
}

VECTOR_LOOP double sum_of_squares_of(const float* in, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += double(in[i]) * double(in[i]);
  return sum;
}

// Two levels: the elements of a piece by `sum_of_piece`, then the pieces in order.
double sum_of_pieces(Workers& workers, const Tensor& in,
                     double (*sum_of_piece)(const float*, int64_t)) {
  const int64_t count = in.element_count();
  const float* values = in.as<float>();
  const int64_t piece_count = base::div_ceil(count, kPieceElements);
  double* sums = reinterpret_cast<double*>(workers.shared_scratch(2 * piece_count));
  workers.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
    sums[begin / kPieceElements] = sum_of_piece(values + begin, end - begin);
  });
  double sum = 0;
  for (int64_t piece = 0; piece < piece_count; ++piece) sum += sums[piece];
  return sum;
}

// Writes the new parameters to `copy` (fp32 or bf16), from `begin` on.
void write_copy(const Tensor& copy, const float* parameter, int64_t begin, int64_t end) {
  if (copy.dtype == DType::kBfloat16) {
    to_bfloat16(parameter + begin, static_cast<Bfloat16*>(copy.data) + begin, end - begin);
  } else {
    std::copy(parameter + begin, parameter + end, copy.as<float>() + begin);
  }
}

// --- 8-bit moments, a block at a time.

// The largest absolute value; integers, because maxima of those vectorise.
float absolute_maximum(const float* values, int64_t count) {
  int32_t maximum = 0;
  for (int64_t i = 0; i < count; ++i) {
    maximum = std::max(maximum, backend::absolute_bits(values[i]));
  }
  return std::bit_cast<float>(maximum);
}

template <bool kSigned>
void decode_moments(const uint8_t* codes, float scale, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = backend::decode_moment(kSigned, codes[i]) * scale;
}

// Returns the block's scale.
template <bool kSigned>
float encode_moments(const float* values, int64_t count, uint8_t* codes) {
  const backend::MomentScale block = backend::moment_scale(absolute_maximum(values, count));
  for (int64_t i = 0; i < count; ++i) codes[i] = backend::encode_moment(kSigned, values[i], block);
  return block.scale;
}

// --- AdamW.

// The constants of one step: p -= rate * m / (sqrt(v) * v_factor + epsilon) + decay * p. The decay
// is not folded into a factor 1 - decay, which would round most of it away.
struct AdamwStep {
  float gradient_scale, beta1, beta2, rate, v_factor, epsilon, decay;
};

AdamwStep adamw_step(const AdamwArgs& args) {
  const double m_correction = 1 - std::pow(double(args.beta1), double(args.step));
  const double v_correction = 1 - std::pow(double(args.beta2), double(args.step));
  return {.gradient_scale = args.gradient_scale.as<float>()[0],
          .beta1 = args.beta1,
          .beta2 = args.beta2,
          .rate = float(args.learning_rate / m_correction),
          .v_factor = float(1 / std::sqrt(v_correction)),
          .epsilon = args.epsilon,
          .decay = args.learning_rate * args.weight_decay};
}

void adamw_elements(const AdamwStep& step, const float* gradient, int64_t count, float* parameter,
                    float* m, float* v) {
  const AdamwStep s = step;  // A copy whose address nobody has: the stores below cannot change it.
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * s.gradient_scale;
    const float new_m = s.beta1 * m[i] + (1.0f - s.beta1) * g;
    const float new_v = s.beta2 * v[i] + (1.0f - s.beta2) * g * g;
    m[i] = new_m;
    v[i] = new_v;
    parameter[i] -=
        s.rate * new_m / (std::sqrt(new_v) * s.v_factor + s.epsilon) + s.decay * parameter[i];
  }
}

// A block's parameters and moments in fp32, however they are kept.
struct AdamwBlock {
  float parameter[kMomentBlock], m[kMomentBlock], v[kMomentBlock];
};

void read_block(const AdamwArgs& args, int64_t first, int64_t count, AdamwBlock& block) {
  if (args.parameter.dtype == DType::kBfloat16) {
    to_float(static_cast<const Bfloat16*>(args.parameter.data) + first, block.parameter, count);
  } else {
    std::copy_n(args.parameter.as<float>() + first, count, block.parameter);
  }
  if (args.m.dtype == DType::kUint8) {
    const int64_t at = first / kMomentBlock;
    decode_moments<true>(args.m.as<uint8_t>() + first, args.m_scale.as<float>()[at], count,
                         block.m);
    decode_moments<false>(args.v.as<uint8_t>() + first, args.v_scale.as<float>()[at], count,
                          block.v);
    for (int64_t i = 0; i < count; ++i) block.v[i] *= block.v[i];
  } else {
    std::copy_n(args.m.as<float>() + first, count, block.m);
    std::copy_n(args.v.as<float>() + first, count, block.v);
  }
}

void write_block(const AdamwArgs& args, int64_t first, int64_t count, const AdamwBlock& block) {
  if (args.parameter.dtype == DType::kBfloat16) {
    auto* parameter = static_cast<Bfloat16*>(args.parameter.data) + first;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t random = backend::rounding_bits(args.rounding_seed, args.step, first + i);
      parameter[i] = {backend::round_stochastically(block.parameter[i], random)};
    }
  } else {
    std::copy_n(block.parameter, count, args.parameter.as<float>() + first);
  }
  if (args.m.dtype == DType::kUint8) {
    const int64_t at = first / kMomentBlock;
    args.m_scale.as<float>()[at] =
        encode_moments<true>(block.m, count, args.m.as<uint8_t>() + first);
    float roots[kMomentBlock];
    for (int64_t i = 0; i < count; ++i) roots[i] = std::sqrt(block.v[i]);
    args.v_scale.as<float>()[at] =
        encode_moments<false>(roots, count, args.v.as<uint8_t>() + first);
  } else {
    std::copy_n(block.m, count, args.m.as<float>() + first);
    std::copy_n(block.v, count, args.v.as<float>() + first);
  }
}

void adamw_range(const AdamwStep& step, const AdamwArgs& args, int64_t begin, int64_t end) {
  const float* gradient = args.gradient.as<float>();
  if (args.parameter.dtype == DType::kFloat32 && args.m.dtype == DType::kFloat32) {
    return adamw_elements(step, gradient + begin, end - begin, args.parameter.as<float>() + begin,
                          args.m.as<float>() + begin, args.v.as<float>() + begin);
  }
  for (int64_t first = begin; first < end; first += kMomentBlock) {
    const int64_t count = std::min(kMomentBlock, end - first);
    AdamwBlock block;
    read_block(args, first, count, block);
    adamw_elements(step, gradient + first, count, block.parameter, block.m, block.v);
    write_block(args, first, count, block);
  }
}

void check_adamw(const AdamwArgs& args) {
  const int64_t count = args.parameter.element_count();
  CHECK(args.gradient.element_count() == count && args.step >= 1);
  CHECK(args.m.element_count() == count && args.v.element_count() == count);
  CHECK(args.m.dtype == args.v.dtype);
  CHECK(!args.copy ||
        (args.copy.element_count() == count && args.parameter.dtype == DType::kFloat32));
  if (args.m.dtype == DType::kUint8) {
    const int64_t block_count = base::div_ceil(count, kMomentBlock);
    CHECK(args.m_scale.element_count() == block_count);
    CHECK(args.v_scale.element_count() == block_count);
  }
}

}  // namespace

void CpuOps::sum(const SumArgs& args, Stream&) {
  args.out.as<float>()[0] = float(sum_of_pieces(workers_, args.in, sum_of));
}

void CpuOps::sum_of_squares(const SumOfSquaresArgs& args, Stream&) {
  const double sum = sum_of_pieces(workers_, args.in, sum_of_squares_of);
  float* out = args.out.as<float>();
  out[0] = (args.accumulate ? out[0] : 0.0f) + float(sum);
}

void CpuOps::clip_scale(const ClipScaleArgs& args, Stream&) {
  double total = 0;
  for (const float sum : args.sums_of_squares.span<const float>()) total += double(sum);
  const float norm = float(std::sqrt(total));
  float& scale = args.scale.as<float>()[0];
  if (!std::isfinite(norm)) {
    scale = std::numeric_limits<float>::quiet_NaN();
  } else {
    scale = args.norm_max <= 0 ? 1.0f : std::min(1.0f, args.norm_max / (norm + 1e-6f));
  }
}

void CpuOps::adamw(const AdamwArgs& args, Stream&) {
  check_adamw(args);
  const AdamwStep step = adamw_step(args);
  const bool is_skipped = std::isnan(step.gradient_scale);
  if (is_skipped && !args.zero_gradient) return;
  float* gradient = args.gradient.as<float>();
  const int64_t count = args.parameter.element_count();
  workers_.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
    if (!is_skipped) {
      adamw_range(step, args, begin, end);
      if (args.copy) write_copy(args.copy, args.parameter.as<float>(), begin, end);
    }
    if (args.zero_gradient) std::fill(gradient + begin, gradient + end, 0.0f);
  });
}

void CpuOps::sgd(const SgdArgs& args, Stream&) {
  const int64_t count = args.parameter.element_count();
  CHECK(args.gradient.element_count() == count &&
        (!args.copy || args.copy.element_count() == count));
  const float scale = args.gradient_scale.as<float>()[0];
  const bool is_skipped = std::isnan(scale);
  if (is_skipped && !args.zero_gradient) return;
  const float decay = args.learning_rate * args.weight_decay;
  const float rate = args.learning_rate * scale;
  float* parameter = args.parameter.as<float>();
  float* gradient = args.gradient.as<float>();
  workers_.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
    if (!is_skipped) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i)
        parameter[i] -= rate * gradient[i] + decay * parameter[i];
      if (args.copy) write_copy(args.copy, parameter, begin, end);
    }
    if (args.zero_gradient) std::fill(gradient + begin, gradient + end, 0.0f);
  });
}

}  // namespace cpu
