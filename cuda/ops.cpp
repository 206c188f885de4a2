// Puts the CUDA backend together: which GPU, which attention, where product plans are kept.
#include <filesystem>
#include <fmt/format.h>

#include "base/log.h"
#include "cuda/check.h"
#include "cuda/cuda_backend.h"
#include "cuda/solo_communicator.h"

namespace cuda {
namespace {

std::unique_ptr<Attention> choose_attention(const backend::CudaOptions& options, Scratch& scratch) {
  if (options.attention == "plain") return make_plain_attention(scratch);
  auto attention = make_cudnn_attention(scratch, options.deterministic);
  if (attention.ok()) return std::move(*attention);
  if (options.attention == "cudnn") {
    throw base::bad_input(fmt::format("cuDNN attention cannot be had: {}", attention.reason()),
                          "Install cuDNN 9 for this CUDA version, or set node.attention to plain.");
  }
  base::log_warning(
      "attention without cuDNN, many times slower: {}; install cuDNN 9 for this CUDA version",
      attention.reason());
  return make_plain_attention(scratch);
}

std::string plan_file(const backend::CudaOptions& options, const DeviceProperties& properties) {
  if (options.cache_folder.empty()) return "";
  std::string name = properties.name;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  return fmt::format("{}/products-{}{}.txt", options.cache_folder, name,
                     options.deterministic ? "-deterministic" : "");
}

void require_driver() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "asking for the driver's version");
  check(cudaRuntimeGetVersion(&runtime), "asking for the toolkit's version");
  // A driver of the same major version serves newer minor ones.
  if (driver / 1000 >= runtime / 1000) return;
  throw base::bad_input(
      fmt::format("the NVIDIA driver knows CUDA {}.{}, this program was built with {}.{}",
                  driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10),
      "Install a newer driver, build with an older toolkit, or set device to cpu.");
}

}  // namespace

CudaOps::CudaOps(const DeviceProperties& properties, const backend::CudaOptions& options,
                 Scratch& scratch)
    : properties_(properties),
      scratch_(scratch),
      matmul_(Matmul::create({.deterministic = options.deterministic,
                              .tune = options.tune_products,
                              .cache_file = plan_file(options, properties)})),
      attention_(choose_attention(options, scratch)) {}

}  // namespace cuda

namespace backend {

std::vector<Backend> make_cuda_backends(const CudaOptions& options) {
  const int device_count = count_cuda_devices();
  if (device_count == 0) {
    throw base::bad_input("device cuda was asked for, but no NVIDIA GPU was found",
                          "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or set device to cpu.");
  }
  cuda::require_driver();
  const int ranks = options.ranks > 0 ? options.ranks : device_count;
  if (ranks > 1) {
    throw base::bad_input(fmt::format("{} GPUs in one node were asked for", ranks),
                          "This version trains on one GPU per node: start a node for each.");
  }
  const cuda::DeviceProperties properties = cuda::read_properties(0);
  auto device = cuda::make_device(0, properties);
  auto ops = std::make_unique<cuda::CudaOps>(properties, options, device->scratch());
  std::vector<Backend> backends;
  backends.push_back({.device = std::move(device),
                      .ops = std::move(ops),
                      .communicator = std::make_unique<cuda::SoloCommunicator>()});
  return backends;
}

int count_cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

}  // namespace backend
