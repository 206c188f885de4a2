// How kernels get at tensors: checked addresses, and eight numbers at once or one at a time.
//
// A kernel that is a template on kLanes works on 8 (16-byte accesses) where rows are aligned, and
// on 1 where they are not (odd widths): the same text for both.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "backend/tensor.h"
#include "cuda/vector.h"

namespace cuda {

// Where the numbers of a tensor of that type lie; null if it is absent.
inline Bf16* bf16(const backend::Tensor& tensor) {
  CHECK(!tensor || tensor.dtype == backend::DType::kBfloat16);
  return static_cast<Bf16*>(tensor.data);
}
inline float* fp32(const backend::Tensor& tensor) {
  CHECK(!tensor || tensor.dtype == backend::DType::kFloat32);
  return static_cast<float*>(tensor.data);
}

// Whether rows of `width` at these addresses (null: absent) can be accessed eight at a time.
inline bool fits_packs(int64_t width, std::initializer_list<const void*> addresses) {
  bool fits = width % kPack == 0;
  for (const void* address : addresses) fits = fits && is_aligned16(address);
  return fits;
}

struct Float1 {
  float at[1];
};
template <int kLanes>
using Lanes = std::conditional_t<kLanes == kPack, Float8, Float1>;

template <int kLanes, class T>
__device__ Lanes<kLanes> load_lanes(const T* address) {
  if constexpr (kLanes == kPack) {
    return load8(address);
  } else {
    return {{load(address)}};
  }
}
template <int kLanes>
__device__ Lanes<kLanes> load_lanes_once(const Bf16* address) {
  if constexpr (kLanes == kPack) {
    return load8_once(address);
  } else {
    return {{load(address)}};
  }
}
template <class T>
__device__ void store_lanes(T* address, const Float8& values) {
  store8(address, values);
}
template <class T>
__device__ void store_lanes(T* address, const Float1& value) {
  store(address, value.at[0]);
}

}  // namespace cuda
