// What the optimiser runs on: sums over gradients, clipping, and the updates, each one pass over
// memory.
#include <algorithm>
#include <cmath>

#include "backend/quantization.h"
#include "base/math.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "cuda/reduce.h"

namespace cuda {

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

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// --- Sums: of blocks of numbers into scratch memory, then of those.

constexpr int kQuadsPerThread = 4;  // At least, so that a block's work outweighs its start.
constexpr int kQuadsAtOnce = 4;     // Loads of a thread under way together.
constexpr int64_t kSumBlocksMax = 4096;

struct Plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};

// Four numbers, or their squares, in fp32: at most 3 roundings, 2e-7 of the sum of magnitudes. All
// sums of such sums are double.
struct SumOfQuad {
  __device__ float operator()(const Quad& x) const {
    return (x.at[0] + x.at[1]) + (x.at[2] + x.at[3]);
  }
};
struct SquaresOfQuad {
  __device__ float operator()(const Quad& x) const {
    return (x.at[0] * x.at[0] + x.at[1] * x.at[1]) + (x.at[2] * x.at[2] + x.at[3] * x.at[3]);
  }
};

// sums[block] = sum of f(quad) over every gridDim-th group of 256 quads. Reads 4 bytes per element.
template <class F>
__global__ void __launch_bounds__(kThreads)
    partial_sums_kernel(double* sums, const float* in, int64_t count, bool is_aligned, F f) {
  const int64_t stride = 4 * int64_t(kThreads) * gridDim.x;
  int64_t first = 4 * (int64_t(blockIdx.x) * kThreads + threadIdx.x);
  double sum = 0;
  for (; is_aligned && first + (kQuadsAtOnce - 1) * stride + 4 <= count;
       first += kQuadsAtOnce * stride) {
    Quad quads[kQuadsAtOnce];
#pragma unroll
    for (int k = 0; k < kQuadsAtOnce; ++k) quads[k] = load(in, {first + k * stride, 4, true});
#pragma unroll
    for (int k = 0; k < kQuadsAtOnce; ++k) sum += double(f(quads[k]));
  }
  for (; first < count; first += stride)
    sum += double(f(load(in, quad_place(first, count, is_aligned))));
  sum = block_combine(sum, 0.0, shared_memory<double>(), Plus{});
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// out = sum of sums (+ out). One block.
__global__ void __launch_bounds__(kThreads)
    total_kernel(float* out, const double* sums, int count, bool accumulate) {
  double sum = 0;
  for (int i = int(threadIdx.x); i < count; i += kThreads) sum += sums[i];
  sum = block_combine(sum, 0.0, shared_memory<double>(), Plus{});
  if (threadIdx.x == 0) *out = (accumulate ? *out : 0.0f) + float(sum);
}

template <class F>
void sum_quads(const Tensor& out, const Tensor& in, bool accumulate, const F& f, Scratch& scratch,
               cudaStream_t stream) {
  const int64_t count = in.element_count();
  const float* values = in.as<float>();
  // By the shape alone, so that every GPU adds in the same order.
  const int64_t wanted = base::div_ceil(count, 4 * kThreads * kQuadsPerThread);
  const int block_count = int(std::clamp<int64_t>(wanted, 1, kSumBlocksMax));
  double* sums = scratch.array<double>(kSumBlocksMax);
  const size_t shared_bytes = kWarps * sizeof(double);
  launch(partial_sums_kernel<F>, {unsigned(block_count), kThreads, shared_bytes}, stream, sums,
         values, count, is_quad_aligned(values), f);
  launch(total_kernel, {1, kThreads, shared_bytes}, stream, out.as<float>(), sums, block_count,
         accumulate);
}

// scale = min(1, norm_max / (sqrt(total) + 1e-6)), NaN where the total is not finite. One warp.
__global__ void clip_scale_kernel(float* scale, const float* sums, int64_t count, float norm_max) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += kWarp) total += double(sums[i]);
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    total += __shfl_xor_sync(kAllLanes, total, offset);
  if (threadIdx.x != 0) return;
  const float norm = float(std::sqrt(total));
  if (!std::isfinite(norm)) {
    *scale = __int_as_float(0x7fc00000);  // NaN.
  } else {
    *scale = norm_max <= 0 ? 1.0f : fminf(1.0f, norm_max / (norm + 1e-6f));
  }
}

// --- AdamW. A step whose gradient scale is NaN changes nothing, and clears the gradient.

// The constants of one step: p -= rate * m / (sqrt(v) * v_factor + epsilon) + decay * p. The decay
// is not folded into a factor 1 - decay, which would round most of it away.
struct AdamwStep {
  float beta1, beta2, rate, v_factor, epsilon, decay;
  uint64_t rounding_seed;
  int64_t number;
  bool zero_gradient;
};

template <class Parameter, class Moment>
struct AdamwArrays {
  Parameter* parameter;
  float* gradient;
  Moment *m, *v;
  float *m_scale, *v_scale;  // Of 8-bit moments.
  float* copy;               // At most one of the two.
  Bf16* bf16_copy;
  const float* gradient_scale;
  int64_t count;
  bool is_aligned;
};

// Returns the roots of the new v.
__device__ Quad update_quad(const AdamwStep& s, float gradient_scale, const Quad& gradient,
                            Quad& parameter, Quad& m, Quad& v) {
  Quad root;
  for (int k = 0; k < 4; ++k) {
    const float g = gradient.at[k] * gradient_scale;
    m.at[k] = s.beta1 * m.at[k] + (1.0f - s.beta1) * g;
    v.at[k] = s.beta2 * v.at[k] + (1.0f - s.beta2) * g * g;
    root.at[k] = sqrtf(v.at[k]);
    parameter.at[k] -=
        s.rate * m.at[k] / (root.at[k] * s.v_factor + s.epsilon) + s.decay * parameter.at[k];
  }
  return root;
}

template <class Moment>
__device__ void store_parameter(const AdamwStep&, const AdamwArrays<float, Moment>& a,
                                const QuadPlace& place, const Quad& parameter) {
  store(a.parameter, place, parameter);
  if (a.copy) store(a.copy, place, parameter);
  if (a.bf16_copy) store(a.bf16_copy, place, parameter);
}
// Rounded stochastically.
template <class Moment>
__device__ void store_parameter(const AdamwStep& s, const AdamwArrays<Bf16, Moment>& a,
                                const QuadPlace& place, const Quad& parameter) {
  QuadBits bits;
  for (int k = 0; k < 4; ++k) {
    const uint32_t random = backend::rounding_bits(s.rounding_seed, s.number, place.first + k);
    bits.at[k] = backend::round_stochastically(parameter.at[k], random);
  }
  store(a.parameter, place, bits);
}

template <class Parameter>
__device__ __forceinline__ void step_quad(const AdamwArrays<Parameter, float>& a,
                                          const AdamwStep& s, const QuadPlace& place) {
  const float scale = *a.gradient_scale;
  const Quad gradient = load(a.gradient, place);
  Quad parameter = load(a.parameter, place), m = load(a.m, place), v = load(a.v, place);
  // The compiler would move the loads behind the test, which waits for the scale, but for this.
  __syncwarp();
  if (scale == scale) {
    update_quad(s, scale, gradient, parameter, m, v);
    store(a.m, place, m);
    store(a.v, place, v);
    store_parameter(s, a, place, parameter);
  }
  if (s.zero_gradient) store(a.gradient, place, Quad{});
}

// The update of AdamwArgs with fp32 moments, a quad per thread. Moves 34 bytes per element with an
// fp32 parameter, a bf16 copy and a cleared gradient: 16 read, 18 written; 28 with a bf16
// parameter.
template <class Parameter>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(AdamwArrays<Parameter, float> a, AdamwStep s) {
  const int64_t begin = 4 * int64_t(blockIdx.x) * kThreads, first = begin + 4 * int(threadIdx.x);
  if (a.is_aligned && begin + 4 * kThreads <= a.count) {
    step_quad(a, s, {first, 4, true});  // No branches between the loads.
  } else {
    step_quad(a, s, quad_place(first, a.count, false));
  }
}

// --- The same with 8-bit moments, see backend/quantization.h.

struct MomentTables {
  float m[128], m_thresholds[128], v[256], v_thresholds[256];
};

// As backend::decode_moment and encode_moment, with the tables in shared memory, where threads find
// different magnitudes at the same time.
__device__ Quad decode_m(const MomentTables& tables, unsigned codes, float scale) {
  Quad m;
  for (int k = 0; k < 4; ++k) {
    const unsigned code = codes >> 8 * k & 0xff;
    const float magnitude = tables.m[code & 127] * scale;
    m.at[k] = (code & 128) != 0 ? -magnitude : magnitude;
  }
  return m;
}
__device__ Quad decode_v(const MomentTables& tables, unsigned codes, float scale) {
  Quad v;
  for (int k = 0; k < 4; ++k) {
    const float root = tables.v[codes >> 8 * k & 0xff] * scale;
    v.at[k] = root * root;
  }
  return v;
}
__device__ unsigned encode_m(const MomentTables& tables, const Quad& m,
                             const backend::MomentScale& block) {
  if (!(block.scale > 0)) return 0;
  unsigned codes = 0;
  for (int k = 0; k < 4; ++k) {
    const float x = __saturatef(fabsf(m.at[k]) * block.inverse);  // Of NaN it makes 0.
    const unsigned index = backend::nearest_magnitude<7>(tables.m_thresholds, x);
    codes |= (m.at[k] < 0 && index != 0 ? index | 128 : index) << 8 * k;
  }
  return codes;
}
__device__ unsigned encode_v(const MomentTables& tables, const Quad& root,
                             const backend::MomentScale& block) {
  if (!(block.scale > 0)) return 0;
  unsigned codes = 0;
  for (int k = 0; k < 4; ++k) {
    const float x = __saturatef(root.at[k] * block.inverse);
    const unsigned index = backend::nearest_magnitude<8>(tables.v_thresholds, x);
    // A root that became 0 would leave the next step dividing by epsilon.
    codes |= (root.at[k] > 0 && index == 0 ? 1 : index) << 8 * k;
  }
  return codes;
}

// Of the i-th quad of a lane in a block of 256. `kIsWhole`: all of the block can be accessed four
// elements at a time; without branches its loads are under way together.
template <bool kIsWhole, class Parameter>
__device__ QuadPlace place_in_block(const AdamwArrays<Parameter, uint8_t>& a, int64_t block,
                                    int i) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t first = block * kMomentBlock + 4 * (i * kWarp + lane);
  return kIsWhole ? QuadPlace{first, 4, true} : quad_place(first, a.count, a.is_aligned);
}

// One block of 256 by one warp: two quads per lane, in registers from the decoding until the
// largest values are known and the new codes can be written.
template <bool kIsWhole, class Parameter>
__device__ void update_moment_block(const AdamwArrays<Parameter, uint8_t>& a, const AdamwStep& s,
                                    const MomentTables& tables, float gradient_scale,
                                    int64_t block) {
  const float m_scale = a.m_scale[block], v_scale = a.v_scale[block];
  QuadPlace places[2];
  Quad gradient[2], parameter[2], m[2], v[2], root[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const QuadPlace& place = places[i] = place_in_block<kIsWhole>(a, block, i);
    gradient[i] = load(a.gradient, place);
    parameter[i] = load(a.parameter, place);
    m[i] = decode_m(tables, load_codes(a.m, place), m_scale);
    v[i] = decode_v(tables, load_codes(a.v, place), v_scale);
  }
  int m_maximum = 0, root_maximum = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    root[i] = update_quad(s, gradient_scale, gradient[i], parameter[i], m[i], v[i]);
    store_parameter(s, a, places[i], parameter[i]);
    m_maximum = absolute_maximum_bits(m[i], m_maximum);
    root_maximum = absolute_maximum_bits(root[i], root_maximum);
  }
  const backend::MomentScale of_m = backend::moment_scale(__int_as_float(warp_max(m_maximum)));
  const backend::MomentScale of_v = backend::moment_scale(__int_as_float(warp_max(root_maximum)));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    store_codes(a.m, places[i], encode_m(tables, m[i], of_m));
    store_codes(a.v, places[i], encode_v(tables, root[i], of_v));
  }
  if (threadIdx.x % kWarp == 0) {
    a.m_scale[block] = of_m.scale;
    a.v_scale[block] = of_v.scale;
  }
}

struct MomentBlocks {
  int64_t first, end;
};

// The update of AdamwArgs with 8-bit moments. Warps take blocks of 256 in turn, so that a thread
// block fills its tables once for many. Moves 16 bytes per element with a bf16 parameter and a
// cleared gradient, 22 with an fp32 one and a bf16 copy.
template <bool kIsWhole, class Parameter>
__global__ void __launch_bounds__(kThreads)
    adamw8_kernel(AdamwArrays<Parameter, uint8_t> a, AdamwStep s, MomentBlocks blocks,
                  MomentTables all) {
  MomentTables& tables = *shared_memory<MomentTables>();
  for (int i = int(threadIdx.x); i < 256; i += kThreads) {
    if (i < 128) tables.m[i] = all.m[i];
    if (i < 128) tables.m_thresholds[i] = all.m_thresholds[i];
    tables.v[i] = all.v[i];
    tables.v_thresholds[i] = all.v_thresholds[i];
  }
  __syncthreads();
  const float scale = *a.gradient_scale;
  const int64_t stride = int64_t(gridDim.x) * kWarps;
  for (int64_t block = blocks.first + int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
       block < blocks.end; block += stride) {
    if (scale == scale) update_moment_block<kIsWhole>(a, s, tables, scale, block);
    for (int i = 0; i < 2 && s.zero_gradient; ++i)
      store(a.gradient, place_in_block<kIsWhole>(a, block, i), Quad{});
  }
}

AdamwStep adamw_step(const AdamwArgs& args) {
  const double m_correction = 1 - std::pow(double(args.beta1), double(args.step));
  const double v_correction = 1 - std::pow(double(args.beta2), double(args.step));
  return {.beta1 = args.beta1,
          .beta2 = args.beta2,
          .rate = float(args.learning_rate / m_correction),
          .v_factor = float(1 / std::sqrt(v_correction)),
          .epsilon = args.epsilon,
          .decay = args.learning_rate * args.weight_decay,
          .rounding_seed = args.rounding_seed,
          .number = args.step,
          .zero_gradient = args.zero_gradient};
}

// The copy's address, if it is of this type.
template <class T>
T* copy_as(const Tensor& copy, DType dtype) {
  return copy && copy.dtype == dtype ? static_cast<T*>(copy.data) : nullptr;
}

template <class Parameter, class Moment>
AdamwArrays<Parameter, Moment> adamw_arrays(const AdamwArgs& args) {
  AdamwArrays<Parameter, Moment> a{.parameter = static_cast<Parameter*>(args.parameter.data),
                                   .gradient = args.gradient.as<float>(),
                                   .m = args.m.as<Moment>(),
                                   .v = args.v.as<Moment>(),
                                   .m_scale = args.m_scale.as<float>(),
                                   .v_scale = args.v_scale.as<float>(),
                                   .copy = copy_as<float>(args.copy, DType::kFloat32),
                                   .bf16_copy = copy_as<Bf16>(args.copy, DType::kBfloat16),
                                   .gradient_scale = args.gradient_scale.as<float>(),
                                   .count = args.parameter.element_count()};
  a.is_aligned = is_quad_aligned(a.parameter) && is_quad_aligned(a.gradient) &&
                 is_quad_aligned(a.m) && is_quad_aligned(a.v) && is_quad_aligned(a.copy) &&
                 is_quad_aligned(a.bf16_copy);
  return a;
}

Grid quad_grid(int64_t count) {
  return {.blocks = unsigned(base::div_ceil(count, 4 * kThreads)), .threads = kThreads};
}

MomentTables moment_tables() {
  MomentTables tables;
  std::ranges::copy(backend::kSignedMagnitudes, tables.m);
  std::ranges::copy(backend::kSignedThresholds, tables.m_thresholds);
  std::ranges::copy(backend::kUnsignedMagnitudes, tables.v);
  std::ranges::copy(backend::kUnsignedThresholds, tables.v_thresholds);
  return tables;
}

template <bool kIsWhole, class Parameter>
void launch_adamw8(const AdamwArgs& args, const AdamwArrays<Parameter, uint8_t>& arrays,
                   const MomentBlocks& blocks, int multiprocessors, cudaStream_t stream) {
  if (blocks.first == blocks.end) return;
  // Four times what runs at once (registers allow four blocks), so that the last blocks to end
  // leave little idle. No block computes what another one needs: their number changes no bits.
  const int64_t thread_blocks = base::div_ceil(blocks.end - blocks.first, kWarps);
  const Grid grid{.blocks = unsigned(std::min<int64_t>(thread_blocks, 16 * multiprocessors)),
                  .threads = kThreads,
                  .shared_bytes = sizeof(MomentTables)};
  launch(adamw8_kernel<kIsWhole, Parameter>, grid, stream, arrays, adamw_step(args), blocks,
         moment_tables());
}

template <class Parameter>
void launch_adamw(const AdamwArgs& args, int multiprocessors, cudaStream_t stream) {
  const int64_t count = args.parameter.element_count();
  if (args.m.dtype == DType::kFloat32) {
    launch(adamw_kernel<Parameter>, quad_grid(count), stream, adamw_arrays<Parameter, float>(args),
           adamw_step(args));
    return;
  }
  const auto arrays = adamw_arrays<Parameter, uint8_t>(args);
  const int64_t whole = arrays.is_aligned ? count / kMomentBlock : 0;
  const int64_t all = base::div_ceil(count, kMomentBlock);
  launch_adamw8<true>(args, arrays, {0, whole}, multiprocessors, stream);
  launch_adamw8<false>(args, arrays, {whole, all}, multiprocessors, stream);
}

void check_adamw(const AdamwArgs& args) {
  const int64_t count = args.parameter.element_count();
  CHECK(args.parameter.dtype == DType::kFloat32 || args.parameter.dtype == DType::kBfloat16);
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

// --- SGD.

struct SgdArrays {
  float *parameter, *gradient, *copy;
  Bf16* bf16_copy;
  const float* gradient_scale;
  int64_t count;
  bool is_aligned, zero_gradient;
};

// p -= learning_rate * scale * gradient + decay * p, or nothing if the scale is NaN. A quad per
// thread. Moves 18 bytes per element with a bf16 copy and a cleared gradient.
__global__ void __launch_bounds__(kThreads)
    sgd_kernel(SgdArrays a, float learning_rate, float decay) {
  const int64_t first = 4 * (int64_t(blockIdx.x) * kThreads + threadIdx.x);
  if (first >= a.count) return;
  const QuadPlace place = quad_place(first, a.count, a.is_aligned);
  const float scale = *a.gradient_scale;
  if (scale == scale) {
    const float rate = learning_rate * scale;
    const Quad gradient = load(a.gradient, place);
    Quad parameter = load(a.parameter, place);
    for (int k = 0; k < 4; ++k) parameter.at[k] -= rate * gradient.at[k] + decay * parameter.at[k];
    store(a.parameter, place, parameter);
    if (a.copy) store(a.copy, place, parameter);
    if (a.bf16_copy) store(a.bf16_copy, place, parameter);
  }
  if (a.zero_gradient) store(a.gradient, place, Quad{});
}

}  // namespace

void CudaOps::sum(const SumArgs& args, Stream& stream) {
  sum_quads(args.out, args.in, false, SumOfQuad{}, sums_, handle_of(stream));
}

void CudaOps::sum_of_squares(const SumOfSquaresArgs& args, Stream& stream) {
  sum_quads(args.out, args.in, args.accumulate, SquaresOfQuad{}, sums_, handle_of(stream));
}

void CudaOps::clip_scale(const ClipScaleArgs& args, Stream& stream) {
  launch(clip_scale_kernel, {1, kWarp}, handle_of(stream), args.scale.as<float>(),
         args.sums_of_squares.as<float>(), args.sums_of_squares.element_count(), args.norm_max);
}

void CudaOps::adamw(const AdamwArgs& args, Stream& stream) {
  check_adamw(args);
  if (args.parameter.element_count() == 0) return;
  const int multiprocessors = properties_.multiprocessors;
  if (args.parameter.dtype == DType::kFloat32) {
    launch_adamw<float>(args, multiprocessors, handle_of(stream));
  } else {
    launch_adamw<Bf16>(args, multiprocessors, handle_of(stream));
  }
}

void CudaOps::sgd(const SgdArgs& args, Stream& stream) {
  const int64_t count = args.parameter.element_count();
  CHECK(args.gradient.element_count() == count &&
        (!args.copy || args.copy.element_count() == count));
  if (count == 0) return;
  SgdArrays a{.parameter = args.parameter.as<float>(),
              .gradient = args.gradient.as<float>(),
              .copy = copy_as<float>(args.copy, DType::kFloat32),
              .bf16_copy = copy_as<Bf16>(args.copy, DType::kBfloat16),
              .gradient_scale = args.gradient_scale.as<float>(),
              .count = count,
              .zero_gradient = args.zero_gradient};
  a.is_aligned = is_quad_aligned(a.parameter) && is_quad_aligned(a.gradient) &&
                 is_quad_aligned(a.copy) && is_quad_aligned(a.bf16_copy);
  launch(sgd_kernel, quad_grid(count), handle_of(stream), a, args.learning_rate,
         args.learning_rate * args.weight_decay);
}

}  // namespace cuda
