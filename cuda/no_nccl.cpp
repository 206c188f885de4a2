// Stands in for nccl_api.cpp and nccl_communicator.cpp in a build without NCCL's header.
#include "base/error.h"
#include "cuda/nccl_communicator.h"

namespace cuda {

std::vector<std::unique_ptr<backend::Communicator>> make_nccl_communicators(
    const std::vector<int>&, std::chrono::milliseconds) {
  throw base::bad_input(
      "NCCL, which several GPUs need, cannot be had: this program was built without it",
      "Build where nccl.h is beside the CUDA toolkit's headers, or train with "
      "one rank and start a node for each GPU.");
}

}  // namespace cuda
