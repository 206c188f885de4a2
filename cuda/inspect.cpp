#include "backend/inspect.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "cuda/cudnn_library.h"

namespace cuda {
namespace {

using backend::CudaDeviceFacts;
using backend::CudaLibraryFacts;

// What NVIDIA's libraries call their version: a number with the digits of its parts.
std::string decimal_version(int64_t version, int64_t major, int64_t minor) {
  return fmt::format("{}.{}.{}", version / major, version % major / minor, version % minor);
}

template <class Function>
Function* function(const Library& library, const char* name) {
  return reinterpret_cast<Function*>(find_function(library, name));
}

std::string cublaslt_version(const Library& library) {
  const auto get = function<size_t()>(library, "cublasLtGetVersion");
  return get ? decimal_version(int64_t(get()), 10000, 100) : "";
}
std::string cudnn_version(const Library& library) {
  const auto get = function<size_t()>(library, "cudnnGetVersion");
  return get ? decimal_version(int64_t(get()), 10000, 100) : "";
}
std::string nccl_version(const Library& library) {
  const auto get = function<int(int*)>(library, "ncclGetVersion");
  int version = 0;
  return get && get(&version) == 0 ? decimal_version(version, 10000, 100) : "";
}
std::string nvrtc_version(const Library& library) {
  const auto get = function<int(int*, int*)>(library, "nvrtcVersion");
  int major = 0, minor = 0;
  return get && get(&major, &minor) == 0 ? fmt::format("{}.{}", major, minor) : "";
}
std::string cudart_version(const Library& library) {
  const auto get = function<int(int*)>(library, "cudaRuntimeGetVersion");
  int version = 0;
  if (!get || get(&version) != 0) return "";
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

CudaLibraryFacts library_facts(const std::string& name, const char* purpose,
                               std::string (*version)(const Library&),
                               const base::Result<Library>& library) {
  CudaLibraryFacts facts{
      .name = name, .purpose = purpose, .path = "", .version = "", .problem = ""};
  if (!library) {
    facts.problem = library.reason();
    return facts;
  }
  facts.path = library->path;
  facts.version = version(*library);
  if (facts.version.empty()) facts.problem = "it does not tell its version";
  return facts;
}

CudaLibraryFacts library_facts(const std::string& name, const char* purpose,
                               std::string (*version)(const Library&)) {
  return library_facts(name, purpose, version, load_library(name));
}

std::vector<CudaDeviceFacts> device_facts(int count) {
  std::vector<CudaDeviceFacts> devices;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    size_t free_bytes = 0, total_bytes = 0;
    if (cudaSetDevice(device) == cudaSuccess) cudaMemGetInfo(&free_bytes, &total_bytes);
    devices.push_back(
        {.name = properties.name,
         .compute_capability = fmt::format("{}.{}", properties.major, properties.minor),
         .total_bytes = int64_t(properties.totalGlobalMem),
         .free_bytes = int64_t(free_bytes)});
  }
  return devices;
}

std::string short_version(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace
}  // namespace cuda

namespace backend {

CudaFacts inspect_cuda() {
  CudaFacts facts{.is_built = true,
                  .runtime_version = cuda::short_version(CUDART_VERSION),
                  .driver_version = "",
                  .problem = "",
                  .devices = {},
                  .libraries = {}};
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
    facts.driver_version = cuda::short_version(driver);
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) {
    facts.devices = cuda::device_facts(count);
  } else {
    facts.problem = cudaGetErrorString(status);
  }
  cudaGetLastError();
  using cuda::library_facts;
  using cuda::toolkit_library;
  facts.libraries = {
      library_facts(toolkit_library("libcublasLt"), "products", cuda::cublaslt_version),
      library_facts("libcudnn.so.9", "attention", cuda::cudnn_version, cuda::load_cudnn_library()),
      library_facts(toolkit_library("libnvrtc"), "compiles cuDNN's kernels", cuda::nvrtc_version),
      library_facts(toolkit_library("libcudart"), "cuDNN's runtime", cuda::cudart_version),
      library_facts("libnccl.so.2", "several GPUs", cuda::nccl_version)};
  return facts;
}

}  // namespace backend
