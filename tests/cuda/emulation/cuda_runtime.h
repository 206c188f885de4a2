// What a kernel sees of CUDA, on a processor. Stands in for the toolkit's header of the same name.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"
#include "emulation/fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

#define threadIdx (emulation::place().thread)
#define blockIdx (emulation::place().block)
#define blockDim (emulation::place().block_size)
#define gridDim (emulation::place().grid_size)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

inline void __syncthreads() {
  emulation::block_barrier();
}
inline int __syncthreads_or(int predicate) {
  return emulation::block_any(predicate != 0);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulation::warp_barrier(mask);
}

namespace emulation {
template <class T>
T exchange(unsigned mask, T value, int source_lane) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_exchange(mask, bits, source_lane);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source_lane) {
  return emulation::exchange(mask, value, source_lane & 31);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  return emulation::exchange(mask, value, emulation::lane() ^ lane_mask);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  const int source = emulation::lane() + int(delta);
  return emulation::exchange(mask, value, source < 32 ? source : emulation::lane());
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  const int source = emulation::lane() - int(delta);
  return emulation::exchange(mask, value, source >= 0 ? source : emulation::lane());
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    ballot |= unsigned(emulation::exchange(mask, predicate != 0, lane)) << lane;
  }
  return ballot;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
void __stwb(T* address, T value) {
  *address = value;
}

inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __saturatef(float x) {
  return x > 0 ? std::min(x, 1.0f) : 0.0f;  // Of NaN as well.
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline int __ffs(int x) {
  return std::countr_zero(unsigned(x)) % 32 + (x != 0);
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
using std::max;
using std::min;
