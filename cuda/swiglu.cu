// SwiGLU, bound by memory: every number is read once and written once, eight at a time. What is
// needed again only much later is read around the caches. Compiled with subnormal numbers taken for
// 0 (meson.build), which bf16 products and sigmoids do not notice.
#include <algorithm>

#include "base/math.h"
#include "cuda/access.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/reduce.h"

namespace cuda {
namespace {

constexpr int kThreadsMax = 256;

// 1 / (1 + e^-x). Where e^-x is infinite this is 0.
__device__ float sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

// out = silu(gate) * up.  A block has a row of gate_up (rows, 2 width). Per element of out 4 bytes
// are read and 2 written. gate_up is needed again in the backward only, out by the next product.
template <int kLanes>
__global__ void __launch_bounds__(kThreadsMax)
    swiglu_forward_kernel(Bf16* out, const Bf16* gate_up, int width) {
  const Bf16* const gates = gate_up + int64_t(blockIdx.x) * 2 * width;
  Bf16* const out_row = out + int64_t(blockIdx.x) * width;
  for (int f = int(threadIdx.x) * kLanes; f < width; f += int(blockDim.x) * kLanes) {
    Lanes<kLanes> gate = load_lanes_once<kLanes>(gates + f);
    const Lanes<kLanes> up = load_lanes_once<kLanes>(gates + width + f);
    for (int i = 0; i < kLanes; ++i) gate.at[i] = gate.at[i] * sigmoid(gate.at[i]) * up.at[i];
    store_lanes(out_row + f, gate);
  }
}

// With s = sigmoid(gate), silu = gate * s:
//   gate' = dy * up * (s + silu * (1 - s)),  up' = dy * silu,  out = silu * up if it is present.
// Per element of dy 6 bytes are read and 4 written, 6 with out. Rows as in the forward.
template <int kLanes>
__global__ void __launch_bounds__(kThreadsMax)
    swiglu_backward_kernel(Bf16* gate_up, Bf16* out, const Bf16* out_gradient, int width) {
  Bf16* const gates = gate_up + int64_t(blockIdx.x) * 2 * width;
  const int64_t row = int64_t(blockIdx.x) * width;
  for (int f = int(threadIdx.x) * kLanes; f < width; f += int(blockDim.x) * kLanes) {
    Lanes<kLanes> gate = load_lanes<kLanes>(gates + f), up = load_lanes<kLanes>(gates + width + f);
    Lanes<kLanes> dy = load_lanes_once<kLanes>(out_gradient + row + f);
    for (int i = 0; i < kLanes; ++i) {
      const float s = sigmoid(gate.at[i]), silu = gate.at[i] * s, d = dy.at[i];
      gate.at[i] = d * up.at[i] * (s + silu * (1.0f - s));
      dy.at[i] = silu * up.at[i];
      up.at[i] = d * silu;
    }
    store_lanes(gates + f, gate);
    store_lanes(gates + width + f, up);
    if (out) store_lanes(out + row + f, dy);
  }
}

// One block per row, no more threads than a row of `width` has work for.
Grid grid_of_rows(int64_t rows, int64_t width, int lanes) {
  const int64_t threads = base::round_up(base::div_ceil(width, lanes), kWarp);
  return {.blocks = unsigned(rows), .threads = unsigned(std::min<int64_t>(threads, kThreadsMax))};
}

}  // namespace

void CudaOps::swiglu_forward(const backend::SwigluForwardArgs& args, backend::Stream& stream) {
  const int64_t width = args.gate_up.shape[1] / 2, rows = args.gate_up.shape[0];
  CHECK(args.gate_up.shape[1] == 2 * width && args.out.element_count() == rows * width);
  Bf16* const out = bf16(args.out);
  const Bf16* const gate_up = bf16(args.gate_up);
  const bool fits = fits_packs(width, {out, gate_up});
  launch(fits ? swiglu_forward_kernel<kPack> : swiglu_forward_kernel<1>,
         grid_of_rows(rows, width, fits ? kPack : 1), handle_of(stream), out, gate_up, int(width));
}

void CudaOps::swiglu_backward(const backend::SwigluBackwardArgs& args, backend::Stream& stream) {
  const int64_t width = args.gate_up.shape[1] / 2, rows = args.gate_up.shape[0];
  CHECK(args.gate_up.shape[1] == 2 * width && args.out_gradient.element_count() == rows * width);
  CHECK(!args.out || args.out.element_count() == rows * width);
  Bf16* const gate_up = bf16(args.gate_up);
  Bf16* const out = bf16(args.out);
  const Bf16* const out_gradient = bf16(args.out_gradient);
  const bool fits = fits_packs(width, {gate_up, out, out_gradient});
  launch(fits ? swiglu_backward_kernel<kPack> : swiglu_backward_kernel<1>,
         grid_of_rows(rows, width, fits ? kPack : 1), handle_of(stream), gate_up, out, out_gradient,
         int(width));
}

}  // namespace cuda
