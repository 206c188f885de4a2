#include "train/device_masters.h"

#include <algorithm>
#include <cstring>

#include "backend/quantization.h"
#include "base/math.h"

namespace train {

using backend::DType;
using backend::Tensor;
using outer::LocalParameters;

namespace {

constexpr int64_t kElements = LocalParameters::kDeviceElements;
constexpr int64_t kNumberBytes = kElements * int64_t{sizeof(float)};
// Codes of a byte, and a scale of two bytes for as few as 128 elements; each array begins at a
// multiple of 256 bytes.
constexpr int64_t kAlignment = 256;
constexpr int64_t kEncodedBytes =
    3 * kAlignment + kElements + 2 * (kElements / backend::kInt4Block);

}  // namespace

DeviceMasters::DeviceMasters(backend::Backend& backend, backend::Stream& stream)
    : backend_(backend),
      stream_(stream),
      numbers_(backend.device->allocate(kNumberBytes, "outer copies")),
      more_numbers_(backend.device->allocate(kNumberBytes, "outer copies")),
      encoded_(backend.device->allocate(kEncodedBytes, "outer copies")),
      staged_(backend.device->allocate_host(kEncodedBytes, "outer copies")) {}

int64_t DeviceMasters::planned_bytes() {
  return 2 * kNumberBytes + kEncodedBytes;
}

// Behind all that is queued for the device.
void DeviceMasters::begin() {
  backend::Device& device = *backend_.device;
  device.enter_thread();
  device.wait(stream_, *device.record(device.compute_stream()));
  device.wait(stream_, *device.record(device.communication_stream()));
}

DeviceMasters::Encoded DeviceMasters::encoded_tensors(DeviceCodec codec, int64_t count) const {
  const bool is_int8 = codec == DeviceCodec::kInt8;
  const int64_t block = is_int8 ? backend::kInt8Block : backend::kInt4Block;
  const DType scale_type = is_int8 ? DType::kFloat32 : DType::kBfloat16;
  const int64_t scale_count = base::div_ceil(count, block);
  const int64_t scale_bytes = scale_count * backend::bytes_per_element(scale_type);
  const int64_t first_code = kAlignment + base::round_up(scale_bytes, kAlignment);
  const int64_t code_bytes = is_int8 ? count : base::div_ceil(count, 2);
  auto* memory = static_cast<std::byte*>(encoded_->data());
  return {.scales = {memory + kAlignment, scale_type, {scale_count}},
          .codes = {memory + first_code, is_int8 ? DType::kInt8 : DType::kUint8, {code_bytes}},
          .bytes = first_code + code_bytes};
}

// Where the same lies in host memory.
std::byte* DeviceMasters::staged(const Tensor& in_encoded) const {
  const auto offset =
      static_cast<std::byte*>(in_encoded.data) - static_cast<std::byte*>(encoded_->data());
  return static_cast<std::byte*>(staged_->data()) + offset;
}

Tensor DeviceMasters::uploaded(std::span<const float> values) {
  const Tensor numbers = numbers_->tensor(DType::kFloat32, {int64_t(values.size())});
  backend_.device->copy(numbers.data, values.data(), numbers.byte_count(), stream_);
  return numbers;
}

bool DeviceMasters::encode_difference(const Tensor& masters, std::span<const float> outer,
                                      const LocalParameters::Blocks<std::byte>& blocks) {
  backend::Device& device = *backend_.device;
  begin();
  const Tensor reference = uploaded(outer);
  if (masters.dtype == DType::kBfloat16) {  // As the masters are rounded.
    const Tensor rounded = more_numbers_->tensor(DType::kBfloat16, reference.shape);
    backend_.ops->cast({.out = rounded, .in = reference}, stream_);
    backend_.ops->cast({.out = reference, .in = rounded}, stream_);
  }
  const Encoded encoded = encoded_tensors(blocks.codec, masters.element_count());
  const Tensor is_finite = encoded_->tensor(DType::kInt32, {1});
  const int32_t yes = 1;
  std::memcpy(staged_->data(), &yes, sizeof yes);
  device.copy(is_finite.data, staged_->data(), is_finite.byte_count(), stream_);
  if (blocks.codec == DeviceCodec::kInt8) {
    backend_.ops->encode_int8({encoded.scales, encoded.codes, is_finite, masters, reference},
                              stream_);
  } else {
    backend_.ops->encode_int4({encoded.scales, encoded.codes, is_finite, masters, reference},
                              stream_);
  }
  device.copy(staged_->data(), encoded_->data(), encoded.bytes, stream_);
  device.synchronize(stream_);
  std::copy_n(staged(encoded.scales), blocks.headers.size(), blocks.headers.begin());
  std::copy_n(staged(encoded.codes), blocks.codes.size(), blocks.codes.begin());
  int32_t flag;
  std::memcpy(&flag, staged_->data(), sizeof flag);
  return flag != 0;
}

// Into numbers_.
Tensor DeviceMasters::decoded(const LocalParameters::Blocks<const std::byte>& blocks,
                              int64_t count) {
  const Encoded encoded = encoded_tensors(blocks.codec, count);
  std::ranges::copy(blocks.headers, staged(encoded.scales));
  std::ranges::copy(blocks.codes, staged(encoded.codes));
  backend_.device->copy(encoded_->data(), staged_->data(), encoded.bytes, stream_);
  const Tensor values = numbers_->tensor(DType::kFloat32, {count});
  if (blocks.codec == DeviceCodec::kInt8) {
    backend_.ops->decode_int8({values, encoded.scales, encoded.codes}, stream_);
  } else {
    backend_.ops->decode_int4({values, encoded.scales, encoded.codes}, stream_);
  }
  return values;
}

void DeviceMasters::add(const Tensor& masters, std::span<const float> change,
                        const LocalParameters::Blocks<const std::byte>* blocks) {
  begin();
  const Tensor addend = uploaded(change);
  backend::Ops& ops = *backend_.ops;
  Tensor sum = masters;
  if (masters.dtype == DType::kBfloat16) {
    sum = more_numbers_->tensor(DType::kFloat32, masters.shape);
    ops.cast({.out = sum, .in = masters}, stream_);
  }
  ops.add({.out = sum, .in = addend}, stream_);
  if (blocks) ops.add({.out = sum, .in = decoded(*blocks, masters.element_count())}, stream_);
  if (masters.dtype == DType::kBfloat16) ops.cast({.out = masters, .in = sum}, stream_);
  backend_.device->synchronize(stream_);
}

}  // namespace train
