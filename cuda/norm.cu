// RMSNorm with the residual addition fused in, forward and backward. All is bound by memory: each
// tensor moves once. A row lies in the registers of one block, 16 numbers to a thread and still
// packed as bf16: half the registers, so twice as many loads under way.
//
// Rows that are too wide for that (the forward's above 16384, the backward's above 8192) or not
// aligned (odd widths) have kernels of their own, which go over a row twice.
#include <algorithm>

#include "base/math.h"
#include "cuda/access.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/reduce.h"

namespace cuda {
namespace {

constexpr int kPacks = 2;  // Per thread and row.
constexpr int kForwardThreadsMax = 1024;
constexpr int kBackwardThreadsMax = 512;  // Its threads need more than 64 registers.
constexpr int kLoopThreads = 256;

constexpr int64_t width_max(int threads_max) {
  return int64_t{kPack} * kPacks * threads_max;
}

// To hold a row in their registers. Width 4096 has 256.
int64_t threads_for(int64_t width) {
  return base::round_up(base::div_ceil(width, kPacks * kPack), kWarp);
}

__device__ uint4 load_packed(const Bf16* address) {
  return __ldcs(reinterpret_cast<const uint4*>(address));
}

// The first column of a thread's pack: neighbouring threads have neighbouring packs.
__device__ int column_of(int pack) {
  return (pack * int(blockDim.x) + int(threadIdx.x)) * kPack;
}

__device__ float inverse_rms(float squares, int width, float epsilon) {
  return rsqrtf(squares / float(width) + epsilon);
}

// The sum of in and delta is rounded before its norm is taken, because the backward sees it
// rounded.
__device__ float round_to_bf16(float value) {
  return __bfloat162float(__float2bfloat16_rn(value));
}

__device__ uint4 rounded_sum(uint4 a, uint4 b) {
  Float8 sum = unpack(a);
  const Float8 addend = unpack(b);
  for (int i = 0; i < kPack; ++i) sum.at[i] += addend.at[i];
  return pack(sum);
}

struct Forward {
  Bf16 *out, *residual_out;  // residual_out may be `in`, or null.
  float* rstd;               // May be null.
  const Bf16 *in, *delta;    // delta may be null.
  const Bf16* weight;
  int width;
  float epsilon;
};

// x = in + delta,  out = x * rstd * weight,  rstd = 1 / sqrt(mean(x^2) + epsilon).
// A block has a row. Per element 4 bytes are read and 4 written (2 and 2 without delta and
// residual_out); out is left in the caches for the product that follows.
__global__ void __launch_bounds__(kForwardThreadsMax) rmsnorm_forward_kernel(const Forward p) {
  const int64_t row = int64_t(blockIdx.x) * p.width;
  uint4 x[kPacks], delta[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) continue;
    x[k] = load_packed(p.in + row + column);
    if (p.delta) delta[k] = load_packed(p.delta + row + column);
  }
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) continue;
    if (p.delta) x[k] = rounded_sum(x[k], delta[k]);
    const Float8 values = unpack(x[k]);
    for (int i = 0; i < kPack; ++i) squares += values.at[i] * values.at[i];
    if (p.residual_out) store8_once(p.residual_out + row + column, values);
  }
  const float rstd = inverse_rms(block_sum(squares, shared_memory<float>()), p.width, p.epsilon);
  if (p.rstd && threadIdx.x == 0) p.rstd[blockIdx.x] = rstd;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) continue;
    Float8 values = unpack(x[k]);
    const Float8 weight = load8(p.weight + column);
    for (int i = 0; i < kPack; ++i) values.at[i] = values.at[i] * rstd * weight.at[i];
    store8(p.out + row + column, values);
  }
}

// The same for every width and alignment. A thread has the same columns both times.
template <int kLanes>
__global__ void __launch_bounds__(kLoopThreads) rmsnorm_forward_loop_kernel(const Forward p) {
  const int64_t row = int64_t(blockIdx.x) * p.width;
  const int first = int(threadIdx.x) * kLanes;
  float squares = 0;
  for (int column = first; column < p.width; column += kLoopThreads * kLanes) {
    Lanes<kLanes> x = load_lanes<kLanes>(p.in + row + column);
    if (p.delta) {
      const Lanes<kLanes> delta = load_lanes<kLanes>(p.delta + row + column);
      for (int i = 0; i < kLanes; ++i) x.at[i] = round_to_bf16(x.at[i] + delta.at[i]);
    }
    if (p.residual_out) store_lanes(p.residual_out + row + column, x);
    for (int i = 0; i < kLanes; ++i) squares += x.at[i] * x.at[i];
  }
  const float rstd = inverse_rms(block_sum(squares, shared_memory<float>()), p.width, p.epsilon);
  if (p.rstd && threadIdx.x == 0) p.rstd[blockIdx.x] = rstd;
  const Bf16* const sum = p.residual_out ? p.residual_out : p.in;
  for (int column = first; column < p.width; column += kLoopThreads * kLanes) {
    Lanes<kLanes> x = load_lanes<kLanes>(sum + row + column);
    const Lanes<kLanes> weight = load_lanes<kLanes>(p.weight + column);
    for (int i = 0; i < kLanes; ++i) x.at[i] = x.at[i] * rstd * weight.at[i];
    store_lanes(p.out + row + column, x);
  }
}

struct Backward {
  Bf16 *in_gradient, *out;                       // out may be null.
  float* weight_parts;                           // (blocks, width)
  const Bf16 *out_gradient, *residual_gradient;  // The latter may be in_gradient, or null.
  const Bf16 *in, *weight;
  const float* rstd;
  int64_t rows;
  int width;
};

// A thread's part of a row of the backward's inputs.
struct BackwardRow {
  uint4 dy[kPacks], x[kPacks], residual[kPacks];
  float rstd;
};

__device__ BackwardRow load_row(const Backward& p, int64_t n) {
  BackwardRow row;
  row.rstd = p.rstd[n];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) continue;
    const int64_t at = n * p.width + column;
    row.dy[k] = load_packed(p.out_gradient + at);
    row.x[k] = load_packed(p.in + at);
    row.residual[k] =
        p.residual_gradient ? load_packed(p.residual_gradient + at) : make_uint4(0, 0, 0, 0);
  }
  return row;
}

// sum of dy * w * x over the thread's part;  weight_sum += dy * x * rstd.
__device__ float dot_and_sum(const Backward& p, const BackwardRow& row, Float8* weight_sum) {
  float dot = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) continue;
    const Float8 dy = unpack(row.dy[k]), x = unpack(row.x[k]), weight = load8(p.weight + column);
    for (int i = 0; i < kPack; ++i) {
      const float product = dy.at[i] * x.at[i];
      dot += product * weight.at[i];
      weight_sum[k].at[i] += product * row.rstd;
    }
  }
  return dot;
}

// `pull` is rstd^2 * mean(dy * w * x).
__device__ void store_row(const Backward& p, const BackwardRow& row, int64_t n, float pull) {
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) continue;
    const int64_t at = n * p.width + column;
    const Float8 dy = unpack(row.dy[k]), weight = load8(p.weight + column);
    Float8 x = unpack(row.x[k]), dx = unpack(row.residual[k]);
    for (int i = 0; i < kPack; ++i) {
      dx.at[i] += row.rstd * (dy.at[i] * weight.at[i] - x.at[i] * pull);
      x.at[i] = x.at[i] * row.rstd * weight.at[i];
    }
    store8(p.in_gradient + at, dx);
    if (p.out) store8(p.out + at, x);
  }
}

// With d = dy * w:  in_gradient = residual_gradient + rstd * (d - x * rstd^2 * mean(d * x)),
// weight_parts[block] = sum over the block's rows of dy * x * rstd.  If out: x * rstd * w.
// Blocks stay: block b has the rows b, b + gridDim, b + 2 gridDim, ... and keeps its part of the
// weight gradient in registers. It loads a row while it works on the one before, so that memory
// never waits for the sum over a row. Per element 6 bytes are read and 2 written (2 more with out;
// without a residual 2 less are read); the weight comes from the first-level cache.
__global__ void __launch_bounds__(kBackwardThreadsMax) rmsnorm_backward_kernel(const Backward p) {
  float* const slots = shared_memory<float>();
  Float8 weight_sum[kPacks] = {};
  BackwardRow next = load_row(p, blockIdx.x);
  int turn = 0;
  for (int64_t n = blockIdx.x; n < p.rows; n += gridDim.x, turn ^= 1) {
    const BackwardRow row = next;
    if (n + gridDim.x < p.rows) next = load_row(p, n + gridDim.x);
    // Slow warps may still read the slots of the row before: rows take turns with two sets.
    const float dot = block_sum(dot_and_sum(p, row, weight_sum), slots + turn * kWarp);
    store_row(p, row, n, row.rstd * row.rstd * dot / float(p.width));
  }
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column < p.width)
      store8(p.weight_parts + int64_t(blockIdx.x) * p.width + column, weight_sum[k]);
  }
}

// The same for every width and alignment. A block's part of the weight gradient grows in memory; a
// column always belongs to the same thread.
template <int kLanes>
__global__ void __launch_bounds__(kLoopThreads) rmsnorm_backward_loop_kernel(const Backward p) {
  float* const slots = shared_memory<float>();
  float* const weight_part = p.weight_parts + int64_t(blockIdx.x) * p.width;
  const int first = int(threadIdx.x) * kLanes;
  int turn = 0;
  for (int64_t n = blockIdx.x; n < p.rows; n += gridDim.x, turn ^= 1) {
    const float rstd = p.rstd[n];
    float dot = 0;
    for (int column = first; column < p.width; column += kLoopThreads * kLanes) {
      const int64_t at = n * p.width + column;
      const Lanes<kLanes> dy = load_lanes<kLanes>(p.out_gradient + at);
      const Lanes<kLanes> x = load_lanes<kLanes>(p.in + at);
      const Lanes<kLanes> weight = load_lanes<kLanes>(p.weight + column);
      for (int i = 0; i < kLanes; ++i) dot += dy.at[i] * x.at[i] * weight.at[i];
    }
    const float pull = rstd * rstd * block_sum(dot, slots + turn * kWarp) / float(p.width);
    for (int column = first; column < p.width; column += kLoopThreads * kLanes) {
      const int64_t at = n * p.width + column;
      const Lanes<kLanes> dy = load_lanes<kLanes>(p.out_gradient + at);
      const Lanes<kLanes> weight = load_lanes<kLanes>(p.weight + column);
      Lanes<kLanes> x = load_lanes<kLanes>(p.in + at), dx = {}, weight_sum = {};
      if (p.residual_gradient) dx = load_lanes<kLanes>(p.residual_gradient + at);
      if (n != blockIdx.x) weight_sum = load_lanes<kLanes>(weight_part + column);
      for (int i = 0; i < kLanes; ++i) {
        dx.at[i] += rstd * (dy.at[i] * weight.at[i] - x.at[i] * pull);
        weight_sum.at[i] += dy.at[i] * x.at[i] * rstd;
        x.at[i] = x.at[i] * rstd * weight.at[i];
      }
      store_lanes(p.in_gradient + at, dx);
      store_lanes(weight_part + column, weight_sum);
      if (p.out) store_lanes(p.out + at, x);
    }
  }
}

// gradient[c] += sum of parts[b][c] over b.
// A block has 32 columns, one per lane, and 32 warps: warp w adds up the parts w, w + 32, ... in
// order, then warp 0 adds the warps' sums in order. Reads 4 bytes per part and column, which the
// kernel before has left in the second-level cache.
__global__ void __launch_bounds__(kWarp* kWarp)
    add_parts_kernel(float* gradient, const float* parts, int part_count, int width) {
  float* const sums = shared_memory<float>();
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int column = int(blockIdx.x) * kWarp + lane;
  float sum = 0;
  if (column < width) {
    for (int part = warp; part < part_count; part += kWarp)
      sum += parts[int64_t(part) * width + column];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || column >= width) return;
  sum = 0;
  for (int w = 0; w < kWarp; ++w) sum += sums[w * kWarp + lane];
  gradient[column] += sum;
}

using ForwardKernel = void (*)(Forward);
using BackwardKernel = void (*)(Backward);

// Blocks of the backward: 512 threads to a multiprocessor is what its registers allow. At 16
// columns to a thread all parts of the weight gradient together are then 4 MB on 132
// multiprocessors, whatever the width.
int64_t persistent_blocks(int64_t rows, int64_t threads, int multiprocessors) {
  return std::min(rows, multiprocessors * std::max<int64_t>(1, kBackwardThreadsMax / threads));
}

}  // namespace

void CudaOps::rmsnorm_forward(const backend::RmsnormForwardArgs& args, backend::Stream& stream) {
  const int64_t width = args.weight.element_count();
  const int64_t rows = args.in.element_count() / width;
  CHECK(args.in.element_count() == rows * width && args.out.element_count() == rows * width);
  CHECK(!args.delta || args.delta.element_count() == rows * width);
  CHECK(!args.delta || args.residual_out);
  CHECK(!args.residual_out || args.residual_out.element_count() == rows * width);
  CHECK(!args.rstd || args.rstd.element_count() == rows);
  const Forward p{.out = bf16(args.out),
                  .residual_out = bf16(args.residual_out),
                  .rstd = fp32(args.rstd),
                  .in = bf16(args.in),
                  .delta = bf16(args.delta),
                  .weight = bf16(args.weight),
                  .width = int(width),
                  .epsilon = args.epsilon};
  const bool fits = fits_packs(width, {p.out, p.residual_out, p.in, p.delta, p.weight});
  const bool in_registers = fits && width <= width_max(kForwardThreadsMax);
  const ForwardKernel kernel = in_registers ? rmsnorm_forward_kernel
                               : fits       ? rmsnorm_forward_loop_kernel<kPack>
                                            : rmsnorm_forward_loop_kernel<1>;
  const int64_t threads = in_registers ? threads_for(width) : kLoopThreads;
  launch(kernel,
         {.blocks = unsigned(rows),
          .threads = unsigned(threads),
          .shared_bytes = kWarp * sizeof(float)},
         handle_of(stream), p);
}

void CudaOps::rmsnorm_backward(const backend::RmsnormBackwardArgs& args, backend::Stream& stream) {
  const int64_t width = args.weight.element_count();
  const int64_t rows = args.in.element_count() / width;
  CHECK(args.in.element_count() == rows * width &&
        args.out_gradient.element_count() == rows * width);
  CHECK(args.in_gradient.element_count() == rows * width && args.rstd.element_count() == rows);
  CHECK(args.weight_gradient.element_count() == width);
  CHECK(!args.residual_gradient || args.residual_gradient.element_count() == rows * width);
  CHECK(!args.out || args.out.element_count() == rows * width);
  Backward p{.in_gradient = bf16(args.in_gradient),
             .out = bf16(args.out),
             .weight_parts = nullptr,
             .out_gradient = bf16(args.out_gradient),
             .residual_gradient = bf16(args.residual_gradient),
             .in = bf16(args.in),
             .weight = bf16(args.weight),
             .rstd = fp32(args.rstd),
             .rows = rows,
             .width = int(width)};
  const bool fits = fits_packs(
      width, {p.in_gradient, p.out, p.out_gradient, p.residual_gradient, p.in, p.weight});
  const bool in_registers = fits && width <= width_max(kBackwardThreadsMax);
  const BackwardKernel kernel = in_registers ? rmsnorm_backward_kernel
                                : fits       ? rmsnorm_backward_loop_kernel<kPack>
                                             : rmsnorm_backward_loop_kernel<1>;
  const int64_t threads = in_registers ? threads_for(width) : kLoopThreads;
  const int64_t blocks = persistent_blocks(rows, threads, properties_.multiprocessors);
  p.weight_parts = scratch_.array<float>(blocks * width);
  launch(kernel,
         {.blocks = unsigned(blocks),
          .threads = unsigned(threads),
          .shared_bytes = 2 * kWarp * sizeof(float)},
         handle_of(stream), p);
  launch(add_parts_kernel,
         {.blocks = unsigned(base::div_ceil(width, kWarp)),
          .threads = kWarp * kWarp,
          .shared_bytes = kWarp * kWarp * sizeof(float)},
         handle_of(stream), fp32(args.weight_gradient), p.weight_parts, int(blocks), int(width));
}

}  // namespace cuda
