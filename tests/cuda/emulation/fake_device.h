// What the emulated runtime says of its device: for tests of what a real one may lack.
#pragma once

#include <cstdint>

namespace emulation {

struct FakeDevice {
  int count = 1;
  int capability_major = 9;
  int driver_version = 13000;
  int64_t total_bytes = int64_t{4} << 30;  // cudaMalloc fails beyond it.
};
FakeDevice& fake_device();

}  // namespace emulation
