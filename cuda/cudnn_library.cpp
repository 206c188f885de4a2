#include "cuda/cudnn_library.h"

#include <cuda_runtime_api.h>
#include <filesystem>
#include <fmt/format.h>

namespace cuda {
namespace {

constexpr const char* kLibrary = "libcudnn.so.9";
constexpr const char* kGraphLibrary = "libcudnn_graph.so.9";  // What every call goes to first.

base::Result<Library> load() {
  const base::Result<Library> library = load_library(kLibrary);
  if (!library) return library;
  const auto beside = std::filesystem::path(library->path).parent_path() / kGraphLibrary;
  std::error_code ignored;
  const bool is_beside = std::filesystem::exists(beside, ignored);
  const auto graphs = load_library(is_beside ? beside.string() : kGraphLibrary);
  if (!graphs)
    return base::Failure{fmt::format("{} is not whole: {}", library->path, graphs.reason())};
  const auto cuda_version =
      reinterpret_cast<size_t (*)()>(find_function(*library, "cudnnGetCudartVersion"));
  const auto found = cuda_version ? cuda_version() / 1000 : 0;
  if (found != CUDART_VERSION / 1000) {
    return base::Failure{fmt::format("{} was built for CUDA {}, this program for CUDA {}",
                                     library->path, found, CUDART_VERSION / 1000)};
  }
  return library;
}

}  // namespace

base::Result<Library> load_cudnn_library() {
  static const base::Result<Library> library = load();
  return library;
}

}  // namespace cuda
