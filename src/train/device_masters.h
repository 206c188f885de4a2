// The outer loop's work on a rank's masters where they lie: encoding their difference to the outer
// parameters, and adding a round's change. What crosses the bus is 4 bytes per parameter and the
// encoded ones, through memory that is pinned.
//
// Each object has a stream and buffers of its own; a rank has two of them, so that the bus works
// for one while the host prepares or reads the other's bytes.
//
// Threads: any, one at a time, while the rank's own does nothing.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "outer/outer_state.h"

namespace train {

class DeviceMasters {
 public:
  // Allocates everything. Arguments outlive the object.
  DeviceMasters(backend::Backend& backend, backend::Stream& stream);

  // Device bytes of one.
  static int64_t planned_bytes();

  // As outer::LocalParameters says, of masters in fp32 or bf16. The host waits.
  using DeviceCodec = outer::LocalParameters::DeviceCodec;
  bool encode_difference(const backend::Tensor& masters, std::span<const float> outer,
                         const outer::LocalParameters::Blocks<std::byte>& blocks);
  void add(const backend::Tensor& masters, std::span<const float> change,
           const outer::LocalParameters::Blocks<const std::byte>* blocks);

 private:
  struct Encoded {
    backend::Tensor scales, codes;
    int64_t bytes = 0;  // From the first of encoded_ on.
  };
  void begin();
  Encoded encoded_tensors(DeviceCodec codec, int64_t count) const;
  std::byte* staged(const backend::Tensor& in_encoded) const;
  backend::Tensor decoded(const outer::LocalParameters::Blocks<const std::byte>& blocks,
                          int64_t count);
  backend::Tensor uploaded(std::span<const float> values);

  backend::Backend& backend_;
  backend::Stream& stream_;
  // fp32 of kDeviceElements each.
  const std::unique_ptr<backend::Buffer> numbers_, more_numbers_;
  // A flag, scales and codes; and the same in host memory.
  const std::unique_ptr<backend::Buffer> encoded_, staged_;
};

}  // namespace train
