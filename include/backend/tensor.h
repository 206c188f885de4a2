// Views of numbers in the memory of a device.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "base/error.h"

namespace backend {

enum class DType : uint8_t { kFloat32, kBfloat16, kInt32, kInt8, kUint8 };

constexpr int64_t bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBfloat16:
      return 2;
    case DType::kInt8:
    case DType::kUint8:
      return 1;
  }
  return 0;
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::kInt8;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kUint8;
};

// Up to four dimensions, row-major, dense.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dimensions) {
    CHECK(dimensions.size() <= 4);
    for (int64_t d : dimensions) dimensions_[size_t(rank_++)] = d;
  }
  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dimensions_[size_t(axis)]; }
  int64_t element_count() const {
    int64_t count = 1;
    for (int i = 0; i < rank_; ++i) count *= dimensions_[size_t(i)];
    return count;
  }
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, 4> dimensions_{};
  int rank_ = 0;
};

// A typed, shaped, dense view. Does not own; the memory outlives it. `data` may be device memory:
// only operations of the device's backend look behind it. A default-made Tensor is "absent"
// (operations say which arguments may be).
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;

  explicit operator bool() const { return data != nullptr; }
  int64_t element_count() const { return shape.element_count(); }
  int64_t byte_count() const { return element_count() * bytes_per_element(dtype); }

  // Host access, checked against the dtype.
  template <class T>
  T* as() const {
    CHECK(dtype == DTypeOf<std::remove_const_t<T>>::value);
    return static_cast<T*>(data);
  }
  template <class T>
  std::span<T> span() const {
    return {as<T>(), size_t(element_count())};
  }

  // `count` elements from `offset` on, with a new shape of that many elements.
  Tensor slice(int64_t offset, const Shape& new_shape) const {
    CHECK(offset >= 0 && offset + new_shape.element_count() <= element_count());
    return {static_cast<char*>(data) + offset * bytes_per_element(dtype), dtype, new_shape};
  }
  Tensor reshape(const Shape& new_shape) const {
    CHECK(new_shape.element_count() == element_count());
    return {data, dtype, new_shape};
  }
};

}  // namespace backend
