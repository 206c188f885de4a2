// A CPU device that claims to compute in bf16, as a GPU does, so that the path through gathered
// compute copies runs here.
#pragma once

#include "support/wrapped_device.h"

namespace shard_test {

class Bfloat16Device : public test::WrappedDevice {
 public:
  using WrappedDevice::WrappedDevice;
  backend::DType compute_dtype() const override { return backend::DType::kBfloat16; }
};

}  // namespace shard_test
