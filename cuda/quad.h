// Four consecutive elements per thread, for kernels over flat arrays of any length and alignment: a
// warp's 16-byte accesses to fp32 lie side by side, as do its 8-byte ones to bf16 and its 4-byte
// ones to codes. Elements behind the end read as 0 and are not written. Plain stores of 16 and 8
// bytes become several narrower ones in large kernels; __stwb() is the same store and stays whole.
#pragma once

#include "backend/quantization.h"
#include "cuda/reduce.h"
#include "cuda/vector.h"

namespace cuda {

struct Quad {
  float at[4];
};

// Where a thread's four elements are.
struct QuadPlace {
  int64_t first;   // A multiple of 4.
  int count;       // How many of the four there are; not positive: none.
  bool is_packed;  // All four in one access.
};

// Of an array of `count` elements; `is_aligned`: four elements at once may be accessed in all
// arrays that the place is used for.
__device__ inline QuadPlace quad_place(int64_t first, int64_t count, bool is_aligned) {
  const int64_t left = count - first;
  return {first, left < 4 ? int(left) : 4, is_aligned && left >= 4};
}

__device__ inline Quad load(const float* array, const QuadPlace& place) {
  Quad quad{};
  if (place.is_packed) {
    const float4 all = *reinterpret_cast<const float4*>(array + place.first);
    return {{all.x, all.y, all.z, all.w}};
  }
  for (int i = 0; i < 4; ++i) {
    if (i < place.count) quad.at[i] = array[place.first + i];
  }
  return quad;
}

__device__ inline void store(float* array, const QuadPlace& place, const Quad& quad) {
  if (place.is_packed) {
    __stwb(reinterpret_cast<float4*>(array + place.first),
           make_float4(quad.at[0], quad.at[1], quad.at[2], quad.at[3]));
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (i < place.count) array[place.first + i] = quad.at[i];
  }
}

// The larger of `maximum` and the bits of the quad's largest absolute value: as integers they are
// ordered like the numbers, with infinity and then NaN on top.
__device__ inline int absolute_maximum_bits(const Quad& quad, int maximum) {
  for (int i = 0; i < 4; ++i) maximum = max(maximum, backend::absolute_bits(quad.at[i]));
  return maximum;
}
__device__ inline int warp_max(int value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = max(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// Four bf16 as they are stored.
struct QuadBits {
  unsigned short at[4];
};

__device__ inline Quad load(const Bf16* array, const QuadPlace& place) {
  Quad quad{};
  if (place.is_packed) {
    const uint2 all = *reinterpret_cast<const uint2*>(array + place.first);
    return {{__uint_as_float(all.x << 16), __uint_as_float(all.x & 0xffff0000u),
             __uint_as_float(all.y << 16), __uint_as_float(all.y & 0xffff0000u)}};
  }
  for (int i = 0; i < 4; ++i) {
    if (i < place.count) quad.at[i] = __bfloat162float(array[place.first + i]);
  }
  return quad;
}

__device__ inline void store(Bf16* array, const QuadPlace& place, const QuadBits& bits) {
  if (place.is_packed) {
    const unsigned low = bits.at[0] | unsigned(bits.at[1]) << 16;
    const unsigned high = bits.at[2] | unsigned(bits.at[3]) << 16;
    __stwb(reinterpret_cast<uint2*>(array + place.first), make_uint2(low, high));
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (i < place.count) array[place.first + i] = __ushort_as_bfloat16(bits.at[i]);
  }
}

__device__ inline void store(Bf16* array, const QuadPlace& place, const Quad& quad) {
  QuadBits bits;
  for (int i = 0; i < 4; ++i) {
    bits.at[i] = __bfloat16_as_ushort(__float2bfloat16_rn(quad.at[i]));
  }
  store(array, place, bits);
}

// Four codes of 8 bits, the first in the lowest bits. `Code` is int8_t or uint8_t.
template <class Code>
__device__ unsigned load_codes(const Code* array, const QuadPlace& place) {
  if (place.is_packed) return *reinterpret_cast<const unsigned*>(array + place.first);
  unsigned codes = 0;
  for (int i = 0; i < 4; ++i) {
    if (i < place.count) codes |= unsigned(uint8_t(array[place.first + i])) << 8 * i;
  }
  return codes;
}

template <class Code>
__device__ void store_codes(Code* array, const QuadPlace& place, unsigned codes) {
  if (place.is_packed) {
    *reinterpret_cast<unsigned*>(array + place.first) = codes;
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (i < place.count) array[place.first + i] = Code(codes >> 8 * i & 0xff);
  }
}

// May four elements at once be accessed? An array that is absent does not matter.
template <class T>
bool is_quad_aligned(const T* array) {
  return reinterpret_cast<uintptr_t>(array) % (4 * sizeof(T)) == 0;
}

}  // namespace cuda
