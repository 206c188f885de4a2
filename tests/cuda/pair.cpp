#include "cuda/pair.h"

#include <cstring>

#include "backend/quantization.h"
#include "cuda/device_under_test.h"

namespace cuda_test {
namespace {

template <class T>
Values as_doubles(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return Values(values.begin(), values.end());
}

}  // namespace

Values bf16_values(int64_t count, uint64_t seed, double deviation) {
  return rounded_to_bf16(ops_test::random_values(count, seed, deviation));
}

Values rounded_to_bf16(Values values) {
  for (double& value : values)
    value = double(backend::from_bfloat16(backend::to_bfloat16(float(value))));
  return values;
}

Tensor Side::compute(const Values& values, const Shape& shape) {
  if (!is_cuda()) return fp32(values, shape);
  std::vector<uint16_t> halves;
  for (double value : values) halves.push_back(backend::to_bfloat16(float(value)));
  return upload(halves.data(), DType::kBfloat16, shape);
}

Tensor Side::fp32(const Values& values, const Shape& shape) {
  const std::vector<float> floats(values.begin(), values.end());
  return upload(floats.data(), DType::kFloat32, shape);
}

Tensor Side::int32(const std::vector<int32_t>& values, const Shape& shape) {
  return upload(values.data(), DType::kInt32, shape);
}

Tensor Side::bytes(const std::vector<uint8_t>& values, DType dtype, const Shape& shape) {
  return upload(values.data(), dtype, shape);
}

Tensor Side::compute_out(const Shape& shape) {
  return compute(Values(size_t(shape.element_count()), std::numeric_limits<double>::quiet_NaN()),
                 shape);
}

Tensor Side::fp32_out(const Shape& shape) {
  return fp32(Values(size_t(shape.element_count()), std::numeric_limits<double>::quiet_NaN()),
              shape);
}

Tensor Side::upload(const void* source, DType dtype, const Shape& shape) {
  const int64_t byte_count = shape.element_count() * backend::bytes_per_element(dtype);
  buffers_.push_back(device().allocate(byte_count, "test"));
  device().copy(buffers_.back()->data(), source, byte_count, stream());
  device().synchronize(stream());
  return buffers_.back()->tensor(dtype, shape);
}

Values Side::download(const Tensor& tensor) {
  std::vector<std::byte> bytes(size_t(tensor.byte_count()));
  device().copy(bytes.data(), tensor.data, tensor.byte_count(), stream());
  device().synchronize(stream());
  switch (tensor.dtype) {
    case DType::kFloat32:
      return as_doubles<float>(bytes);
    case DType::kInt32:
      return as_doubles<int32_t>(bytes);
    case DType::kInt8:
      return as_doubles<int8_t>(bytes);
    case DType::kUint8:
      return as_doubles<uint8_t>(bytes);
    case DType::kBfloat16:
      break;
  }
  std::vector<uint16_t> halves(size_t(tensor.element_count()));
  std::memcpy(halves.data(), bytes.data(), bytes.size());
  Values values;
  for (uint16_t half : halves) values.push_back(double(backend::from_bfloat16(half)));
  return values;
}

void require_same(const Run& run, const std::vector<Tolerance>& tolerances) {
  Side cpu(std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front()));
  const std::vector<Values> expected = run(cpu);
  REQUIRE(expected.size() == tolerances.size());
  std::vector<Values> first;
  for_each_order([&](const char* order) {
    INFO("threads " << order);
    Side device(make_device_under_test());
    const std::vector<Values> found = run(device);
    for (size_t i = 0; i < expected.size(); ++i) {
      INFO("output " << i);
      ops_test::require_close(found[i], expected[i], tolerances[i]);
    }
    if (first.empty()) first = found;
    REQUIRE(found == first);
  });
}

}  // namespace cuda_test
