// A GPU as a backend::Device.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <string>

#include "backend/device.h"
#include "cuda/scratch.h"

namespace cuda {

// What the kernels are chosen by.
struct DeviceProperties {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int multiprocessors = 1;
  int64_t total_bytes = 0;
  double peak_flops = 0;  // Dense bf16 by the data sheet; 0: unknown.
};

// Throws bad_input for a GPU that is too old, with what was found and what to do.
DeviceProperties read_properties(int device);

class CudaStream final : public backend::Stream {
 public:
  explicit CudaStream(cudaStream_t handle) : handle_(handle) {}
  cudaStream_t handle() const { return handle_; }

 private:
  const cudaStream_t handle_;  // Not owned.
};

inline cudaStream_t handle_of(const backend::Stream& stream) {
  return static_cast<const CudaStream&>(stream).handle();
}

class GpuDevice : public backend::Device {
 public:
  virtual Scratch& scratch() = 0;  // For operations on the compute stream.
};

// How many GPUs the process may see at most, without starting CUDA: the device files, less what
// CUDA_VISIBLE_DEVICES hides (`visible`; null: it is not set). Empty and -1 hide all.
int count_possible_gpus(const char* visible, const std::string& device_files = "/dev");

// Whether CUDA has GPUs. Throws bad_input if the process may see some, as count_possible_gpus has
// it, but CUDA cannot use them; of two reasons it names a driver that is too old.
bool has_gpus(const char* visible, const std::string& device_files = "/dev");
// Throws bad_input if the driver is too old for the toolkit that this program was built with.
void require_driver();

// What the calling thread calls CUDA for. Costs nothing where it is the right one already.
void select_device(int device);

// `ranks`: how many share the GPU. Selects the device for the calling thread.
std::unique_ptr<GpuDevice> make_device(int device, const DeviceProperties& properties, int ranks);

}  // namespace cuda
