#include "cuda/check.h"

#include <fmt/format.h>

namespace cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const std::string text =
      fmt::format("CUDA, {}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
  switch (status) {
    case cudaErrorInsufficientDriver:
      throw base::bad_input(text, "Install a newer NVIDIA driver, or set device to cpu.");
    case cudaErrorNoKernelImageForDevice:
      throw base::bad_input(text, "Atoll needs a GPU of compute capability 8.0, 9.0 or 10.0.");
    case cudaErrorMemoryAllocation:
      throw base::resource_lost(text,
                                "Use a smaller micro-batch, more recomputation "
                                "(training.recompute), or node.memory lean.");
    default:
      throw base::resource_lost(text, "Start the node again; if it comes back, test the GPU.");
  }
}

}  // namespace cuda
