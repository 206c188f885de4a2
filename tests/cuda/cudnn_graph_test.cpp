// The graphs of attention, given to cuDNN itself for a GPU that need not be there: it can be
// described by its properties. Without a driver cuDNN checks what the graphs say; with one it also
// says whether it has kernels for them. Nothing runs.
#include "cuda/cudnn_graph.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "cuda/cudnn_frontend_dynamic.h"
#include "support/catch.h"

using cuda::SdpaShape;
using Pass = cuda::SdpaShape::Pass;

namespace {

// cuDNN's own format (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION).
[[maybe_unused]] constexpr const char* kH100 = R"({
  "deviceName": "NVIDIA H100 80GB HBM3", "cudaDeviceId": 0, "deviceVer": 900, "driverVer": 13000,
  "isTccDriver": 0, "l2CacheSize": 52428800, "maxCtasPerSM": 32, "maxRegistersPerSM": 65536,
  "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
  "reservedSharedMemoryPerBlock": 1024, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048,
  "memClockRateKHz": 2619000, "smClockRateKHz": 1980000, "multiProcessorCount": 132,
  "pciDeviceId": 9008, "regsPerBlock": 65536, "supportCoopLaunch": 1,
  "totalGlobalMem": 85028896768, "warpSize": 32,
  "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64]})";

// Empty if cuDNN takes the graph.
std::string check_on_h100([[maybe_unused]] const SdpaShape& shape) {
#if CUDNN_FRONTEND_VERSION >= 12000  // Older ones want a device.
  auto device = std::make_shared<cudnn_frontend::DeviceProperties>();
  const std::string json = kH100;
  auto result = device->deserialize({json.begin(), json.end()});
  cudnn_frontend::graph::Graph graph;
  graph.set_sm_version(90).set_device_properties(device);
  cuda::describe_graph(shape, graph);
  if (result.is_good()) result = graph.validate();
  if (result.is_good()) result = graph.build_operation_graph();
  static const bool has_driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) != nullptr;
  if (result.is_good() && has_driver)
    result = graph.create_execution_plans({cudnn_frontend::HeurMode_t::A});
  if (result.is_good() && has_driver) result = graph.check_support();
  return result.is_good() ? "" : result.get_message();
#else
  return "";
#endif
}

// 32 query and 8 key heads of 128 over 8192 positions, as in a model of 8 billion parameters.
SdpaShape large(Pass pass) {
  return {.pass = pass,
          .entries = 1,
          .length = 8192,
          .heads = 32,
          .kv_heads = 8,
          .head_size = 128,
          .qkv_stride = 48 * 128,
          .out_stride = 32 * 128,
          .kv_gradient_stride = 48 * 128};
}
SdpaShape packed(SdpaShape shape, int64_t entries, int64_t longest = 0) {
  shape.packed_positions = shape.length;
  shape.entries = entries;
  if (longest > 0) shape.length = longest;
  shape.lse_stride = shape.heads;
  shape.kv_gradient_stride = shape.kv_heads * shape.head_size;
  return shape;
}
SdpaShape masked(SdpaShape shape) {
  shape.mask_stride = shape.length;
  return shape;
}
// One key head of it, with everything that reads it.
SdpaShape piece(SdpaShape shape) {
  shape.heads = 4;
  shape.kv_heads = 1;
  shape.is_deterministic = true;
  return shape;
}
SdpaShape with_heads(SdpaShape shape, int64_t heads, int64_t kv_heads, int64_t head_size) {
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_size = head_size;
  shape.qkv_stride = shape.kv_gradient_stride = (heads + 2 * kv_heads) * head_size;
  shape.out_stride = heads * head_size;
  return shape;
}
SdpaShape with_length(SdpaShape shape, int64_t rows, int64_t length) {
  shape.entries = rows;
  shape.length = length;
  return shape;
}

bool can_check() {
  (void)cuda::load_cudnn();  // Fails without a GPU, but loads the library.
  return cudnn_frontend::cudnn_dlhandle != nullptr &&
         cudnn_frontend::detail::get_backend_version() >= 90800;
}

void require_graph(const char* name, const SdpaShape& shape) {
  INFO(name << ", pass " << int(shape.pass));
  REQUIRE(check_on_h100(shape) == "");
}

}  // namespace

TEST_CASE("cuDNN takes the graphs of attention") {
  if (!can_check()) return;
  for (const Pass pass : {Pass::kEvaluation, Pass::kForward, Pass::kBackward}) {
    require_graph("dense", large(pass));
    require_graph("packed", packed(large(pass), 32));
    require_graph("packed, the most entries", packed(large(pass), 4096));
    require_graph("packed, short documents", packed(large(pass), 32, 4096));
    require_graph("packed, shorter documents", packed(large(pass), 64, 1024));
    require_graph("masked", masked(large(pass)));
    require_graph("several rows", with_length(large(pass), 4, 2048));
    require_graph("any length", with_length(large(pass), 3, 1001));
    for (const int64_t head_size : {64, 96, 256}) {
      const SdpaShape shape = with_heads(large(pass), 12, 4, head_size);
      require_graph("other heads", shape);
      require_graph("other heads, packed", packed(shape, 64));
    }
    require_graph("as many key heads", packed(with_heads(large(pass), 16, 16, 128), 32));
    require_graph("one key head", packed(with_heads(large(pass), 16, 1, 64), 32));
  }
}

TEST_CASE("cuDNN takes the graphs of deterministic attention, cut by heads") {
  if (!can_check()) return;
  require_graph("dense", piece(large(Pass::kBackward)));
  require_graph("masked", piece(masked(large(Pass::kBackward))));
}
