// Stands in for the CUDA backend in a binary built without it.
#include "backend/backend.h"
#include "backend/inspect.h"
#include "base/error.h"

namespace backend {

std::vector<Backend> make_cuda_backends(const CudaOptions&) {
  throw base::bad_input(
      "device: cuda was asked for, but this program was built without the CUDA backend",
      "Set device to auto or cpu, or build with -Dcuda=enabled.");
}

void prepare_cuda(int) {}

int count_cuda_devices() {
  return 0;
}

bool has_cuda_devices() {
  return false;
}

CudaFacts inspect_cuda() {
  return {};
}

}  // namespace backend
