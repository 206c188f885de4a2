// What the emulated runtime says of its devices: for tests of what real ones may lack, and of work
// that does not end.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "emulation/cuda_runtime_api.h"

namespace emulation {

struct FakeDevice {
  int count = 1;
  int capability_major = 9;
  int driver_version = 13000;  // An older one has no devices for this toolkit; 0: there is none.
  int64_t total_bytes = int64_t{4} << 30;  // Of each; cudaMalloc fails beyond it.
  const char* name_of_last = "";           // Another kind of GPU than the others; empty: the same.
  int product_multiprocessors = -1;  // What the newest maker of products was told to spread over.
};
FakeDevice& fake_device();

// From now on the stream's work seems not to have ended, until release(): events that are recorded
// in it are not ready, and whoever waits for it waits. (All work has run at once nevertheless.)
struct HoldState;
using Hold = std::shared_ptr<HoldState>;
Hold hold(cudaStream_t stream);
// As soon as `others` are released as well.
void release(const Hold& hold, const std::vector<Hold>& others = {});
std::vector<Hold> holds_of(cudaStream_t stream);

// What starting a kernel returns: a stream must be one of the current device's.
cudaError_t launch_status(cudaStream_t stream);

int device_of(cudaStream_t stream);

}  // namespace emulation
