// What one rank computes with. Backends are chosen at run time; each make function lives in its own
// backend's folder.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "backend/communicator.h"
#include "backend/device.h"
#include "backend/ops.h"

namespace backend {

struct Backend {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<Communicator> communicator;
};

struct CpuOptions {
  int ranks = 1;
  int threads_per_rank = 0;  // 0: all processors divided by the ranks, at least 1.
  std::chrono::milliseconds collective_timeout{60'000};
};
// One Backend per rank, in rank order. Throws bad_input on a processor without the instructions
// that the CPU backend was built for.
std::vector<Backend> make_cpu_backends(const CpuOptions& options);

struct CudaOptions {
  int ranks = 0;  // 0: all visible GPUs.
  std::chrono::milliseconds collective_timeout{60'000};
  // Two runs give the same bits. Costs a few percent, mostly in the backward of attention.
  bool deterministic = false;
  std::string attention =
      "auto";                 // auto: cudnn, or plain where cuDNN cannot be had | cudnn | plain
  bool tune_products = true;  // False: no timing of candidates at the start.
  std::string cache_folder;   // Where the timing's choices are kept; empty: nowhere.
};
// Throws bad_input with what was found when there is no usable GPU, or when this binary was built
// without CUDA.
std::vector<Backend> make_cuda_backends(const CudaOptions& options);
// The GPUs that make_cuda_backends would use; 0 without a driver or without CUDA in this binary.
// Never throws.
int count_cuda_devices();

}  // namespace backend
