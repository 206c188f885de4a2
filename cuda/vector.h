// 16-byte accesses: eight bf16 or four fp32 numbers at once, as fp32 in registers.
#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace cuda {

using Bf16 = __nv_bfloat16;

inline constexpr int kPack = 8;  // bf16 numbers in 16 bytes.

struct Float8 {
  float at[kPack];
};

__device__ inline Float8 unpack(uint4 bits) {
  const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
  Float8 values;
  for (int i = 0; i < 4; ++i) {
    values.at[2 * i] = __uint_as_float(words[i] << 16);
    values.at[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
  return values;
}

__device__ inline uint4 pack(const Float8& values) {
  unsigned words[4];
  for (int i = 0; i < 4; ++i) {
    const unsigned low = __bfloat16_as_ushort(__float2bfloat16_rn(values.at[2 * i]));
    const unsigned high = __bfloat16_as_ushort(__float2bfloat16_rn(values.at[2 * i + 1]));
    words[i] = low | high << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// REQUIRES for all: `address` is 16-byte aligned.
__device__ inline Float8 load8(const Bf16* address) {
  return unpack(*reinterpret_cast<const uint4*>(address));
}
__device__ inline void store8(Bf16* address, const Float8& values) {
  *reinterpret_cast<uint4*>(address) = pack(values);
}
// For what nobody reads again soon: it does not push other data out of the caches.
__device__ inline Float8 load8_once(const Bf16* address) {
  return unpack(__ldcs(reinterpret_cast<const uint4*>(address)));
}
__device__ inline void store8_once(Bf16* address, const Float8& values) {
  __stcs(reinterpret_cast<uint4*>(address), pack(values));
}

__device__ inline Float8 load8(const float* address) {
  const float4 low = reinterpret_cast<const float4*>(address)[0];
  const float4 high = reinterpret_cast<const float4*>(address)[1];
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
__device__ inline void store8(float* address, const Float8& v) {
  reinterpret_cast<float4*>(address)[0] = make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
  reinterpret_cast<float4*>(address)[1] = make_float4(v.at[4], v.at[5], v.at[6], v.at[7]);
}

// One at a time, for what is not aligned.
__device__ inline float load(const Bf16* address) {
  return __bfloat162float(*address);
}
__device__ inline float load(const float* address) {
  return *address;
}
__device__ inline void store(Bf16* address, float value) {
  *address = __float2bfloat16_rn(value);
}
__device__ inline void store(float* address, float value) {
  *address = value;
}

inline bool is_aligned16(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

}  // namespace cuda
