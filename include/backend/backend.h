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
  int ranks = 1;             // Threads that share the machine's memory.
  int threads_per_rank = 0;  // 0: all processors divided by the ranks, at least 1.
  std::chrono::milliseconds collective_timeout{60'000};
};
// One Backend per rank, in rank order. Throws bad_input on a processor without the instructions
// that the CPU backend was built for.
std::vector<Backend> make_cpu_backends(const CpuOptions& options);

struct CudaOptions {
  // A GPU each; 0: all visible ones. More ranks than GPUs are possible on a machine with one GPU
  // (they share it: for tests of the sharded path).
  int ranks = 0;
  // auto: nothing has to move for one rank, NCCL for several GPUs, in_process for several ranks on
  // one GPU | nccl | in_process
  std::string communicator = "auto";
  std::chrono::milliseconds collective_timeout{60'000};
  // Two runs give the same bits. Costs a few percent, mostly in the backward of attention.
  bool deterministic = false;
  std::string attention =
      "auto";  // auto: cudnn, or plain where cuDNN cannot be had | cudnn | plain
  // Of each GPU, which products leave free; only where NCCL's collectives run beside them.
  int communication_multiprocessors = 0;
  bool tune_products = true;  // False: no timing of candidates at the start.
  std::string cache_folder;   // Where the timing's choices are kept; empty: nowhere.
};
// One Backend per rank, in rank order. Throws bad_input with what was found when there is no usable
// GPU, when this binary was built without CUDA, or when NCCL is needed and cannot be loaded.
std::vector<Backend> make_cuda_backends(const CudaOptions& options);
// Once, before anything else of CUDA in the process, count_cuda_devices() included: with the ranks
// that will be asked for (CudaOptions::ranks). Elsewhere it does nothing.
void prepare_cuda(int ranks);
// The GPUs that make_cuda_backends would use; 0 without a driver or without CUDA in this binary.
// Never throws.
int count_cuda_devices();
// Whether a node that may choose trains on GPUs. False where there is none, where they are hidden
// by CUDA_VISIBLE_DEVICES, or without CUDA in this binary. Throws bad_input, with what was found,
// where the machine has GPUs that CUDA cannot use, as with a driver that is too old: to train on
// the CPU instead would go unnoticed for long.
bool has_cuda_devices();

}  // namespace backend
