// Sums and maxima over a warp or a block, in a tree that depends on the block's size alone.
#pragma once

#include <cuda_runtime.h>

namespace cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float warp_sum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}
__device__ inline float warp_max(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// Over all threads of a one-dimensional block of whole warps; every thread gets the result.
// `slots` is shared memory for one value per warp; it may be used again after the next
// __syncthreads().
template <class T, class Combine>
__device__ T block_combine(T value, T neutral, T* slots, const Combine& combine) {
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int warp_count = int(blockDim.x) / kWarp;
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  if (lane == 0) slots[warp] = value;
  __syncthreads();
  value = lane < warp_count ? slots[lane] : neutral;
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

__device__ inline float block_sum(float value, float* slots) {
  return block_combine(value, 0.0f, slots, [](float a, float b) { return a + b; });
}

}  // namespace cuda
