// What becomes of the error codes of the CUDA libraries. A failed call on a device that worked
// before means that the device, its driver or its memory is lost: the node must be started again.
#pragma once

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace cuda {

// Throws resource_lost, or bad_input for what a restart cannot cure (a driver that is too old, no
// kernel for this GPU). `what` says what was tried: "copying to the device".
void check(cudaError_t status, const char* what);

}  // namespace cuda
