#include "cuda/nccl_api.h"

#include <fmt/format.h>
#include <type_traits>

#include "cuda/libraries.h"

namespace cuda {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";
// Calls that return at once came with 2.14; that several threads may abort at the same time only
// with this version.
constexpr int kOldest = 21901;

base::Result<NcclApi> load_functions() {
  const base::Result<Library> library = load_library(kLibrary);
  if (!library) return base::Failure{library.reason()};
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
        find_function(*library, name));
    if (function == nullptr) missing = name;
  };
  NcclApi api;
  find(api.get_version, "ncclGetVersion");
  find(api.get_unique_id, "ncclGetUniqueId");
  find(api.comm_init_rank_config, "ncclCommInitRankConfig");
  find(api.comm_finalize, "ncclCommFinalize");
  find(api.comm_destroy, "ncclCommDestroy");
  find(api.comm_abort, "ncclCommAbort");
  find(api.comm_get_async_error, "ncclCommGetAsyncError");
  find(api.get_error_string, "ncclGetErrorString");
  find(api.get_last_error, "ncclGetLastError");
  find(api.all_gather, "ncclAllGather");
  find(api.reduce_scatter, "ncclReduceScatter");
  find(api.all_reduce, "ncclAllReduce");
  find(api.broadcast, "ncclBroadcast");
  if (missing != nullptr) {
    return base::Failure{fmt::format("{} has no {}: it is too old", library->path, missing)};
  }
  int version = 0;
  if (api.get_version(&version) != ncclSuccess || version < kOldest) {
    return base::Failure{fmt::format("NCCL {}.{}.{} is too old: 2.19.1 is needed", version / 10000,
                                     version / 100 % 100, version % 100)};
  }
  return api;
}

}  // namespace

base::Result<const NcclApi*> load_nccl() {
  static const base::Result<NcclApi> api = load_functions();
  if (!api) return base::Failure{api.reason()};
  return &*api;
}

}  // namespace cuda
