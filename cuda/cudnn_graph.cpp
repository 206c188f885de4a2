// Graphs of cudnn-frontend, and the library that runs them.
#include "cuda/cudnn_graph.h"

#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <mutex>
#include <unordered_map>

#include "cuda/check.h"
#include "cuda/cudnn_frontend_dynamic.h"
#include "cuda/cudnn_library.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // Declared, but not defined, by its headers.
}

namespace cuda {

using cudnn_frontend::DataType_t;
using cudnn_frontend::graph::Graph;
using cudnn_frontend::graph::SDPA_attributes;
using cudnn_frontend::graph::SDPA_backward_attributes;
using Attributes = cudnn_frontend::graph::Tensor_attributes;
using GraphTensor = std::shared_ptr<Attributes>;
using Pass = SdpaShape::Pass;

namespace {

// What tensors are called between a graph and its run.
enum TensorId : int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOut,
  kLse,
  kMask,
  kOutGradient,
  kQueryGradient,
  kKeyGradient,
  kValueGradient,
  kQueryLengths,
  kKeyLengths,
  kQkvOffsets,
  kOutOffsets,
  kLseOffsets,
  kKvGradientOffsets,
};

// Newer versions of cudnn-frontend have another name for it.
template <class Options>
void generate_stats(Options& options, bool value) {
  if constexpr (requires { options.set_generate_stats(value); }) {
    options.set_generate_stats(value);
  } else {
    options.set_is_inference(!value);
  }
}

// Writes a shape down as a graph.
class Description {
 public:
  Description(const SdpaShape& shape, Graph& graph) : s_(shape), graph_(graph) {
    graph_.set_io_data_type(DataType_t::BFLOAT16)
        .set_intermediate_data_type(DataType_t::FLOAT)
        .set_compute_data_type(DataType_t::FLOAT);
    if (!s_.is_packed()) return;
    qkv_offsets_ = integers(kQkvOffsets, s_.entries + 1, DataType_t::INT64);
    out_offsets_ = integers(kOutOffsets, s_.entries + 1, DataType_t::INT64);
    if (s_.pass != Pass::kEvaluation)
      lse_offsets_ = integers(kLseOffsets, s_.entries + 1, DataType_t::INT64);
    if (s_.pass == Pass::kBackward)
      kv_gradient_offsets_ = integers(kKvGradientOffsets, s_.entries + 1, DataType_t::INT64);
    // The same numbers, under two names.
    query_lengths_ = integers(kQueryLengths, s_.entries, DataType_t::INT32);
    key_lengths_ = integers(kKeyLengths, s_.entries, DataType_t::INT32);
  }

  void forward() {
    auto options = options_of<SDPA_attributes>();
    generate_stats(options, s_.pass == Pass::kForward);
    const GraphTensor query = query_part(kQuery), key = kv_part(kKey), value = kv_part(kValue);
    const auto [out, lse] = graph_.sdpa(query, key, value, options);
    place(*out, kOut, s_.heads, s_.out_stride, out_offsets_).set_output(true);
    if (s_.pass == Pass::kForward) place_lse(*lse).set_output(true);
  }

  void backward() {
    auto options = options_of<SDPA_backward_attributes>();
    options.set_deterministic_algorithm(s_.is_deterministic);
    // Without a bound the workspace is made for `entries` sequences of full length.
    if (s_.is_packed()) {
      options.set_max_total_seq_len_q(s_.packed_positions)
          .set_max_total_seq_len_kv(s_.packed_positions);
    }
    const GraphTensor query = query_part(kQuery), key = kv_part(kKey), value = kv_part(kValue);
    Attributes out, out_gradient, lse;
    place(out, kOut, s_.heads, s_.out_stride, out_offsets_);
    place(out_gradient, kOutGradient, s_.heads, s_.out_stride, out_offsets_);
    place_lse(lse);
    const auto [query_gradient, key_gradient, value_gradient] =
        graph_.sdpa_backward(query, key, value, graph_.tensor(out), graph_.tensor(out_gradient),
                             graph_.tensor(lse), options);
    place(*query_gradient, kQueryGradient, s_.heads, s_.qkv_stride, qkv_offsets_).set_output(true);
    place(*key_gradient, kKeyGradient, s_.kv_heads, s_.kv_gradient_stride, kv_gradient_offsets_)
        .set_output(true);
    place(*value_gradient, kValueGradient, s_.kv_heads, s_.kv_gradient_stride, kv_gradient_offsets_)
        .set_output(true);
  }

 private:
  // What forward and backward have in common.
  template <class Options>
  Options options_of() {
    Options options;
    options.set_name("attention")
        .set_causal_mask(true)
        .set_attn_scale(1.0f / std::sqrt(float(s_.head_size)));
    if (s_.is_packed()) {
      options.set_padding_mask(true).set_seq_len_q(query_lengths_).set_seq_len_kv(key_lengths_);
    }
    if (s_.mask_stride > 0) {
      const int64_t entry = s_.length * s_.mask_stride;
      options.set_bias(graph_.tensor(Attributes()
                                         .set_name("mask")
                                         .set_uid(kMask)
                                         .set_dim({s_.entries, 1, s_.length, s_.length})
                                         .set_stride({entry, entry, s_.mask_stride, 1})));
    }
    return options;
  }

  GraphTensor integers(TensorId id, int64_t count, DataType_t type) {
    return graph_.tensor(Attributes()
                             .set_name(fmt::format("table{}", int64_t{id}))
                             .set_uid(id)
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(type));
  }

  // (entries, heads, length, head_size). The offsets are null where entries are not packed.
  Attributes& place(Attributes& tensor, TensorId id, int64_t heads, int64_t stride,
                    const GraphTensor& offsets) {
    tensor.set_name(fmt::format("tensor{}", int64_t{id}))
        .set_uid(id)
        .set_dim({s_.entries, heads, s_.length, s_.head_size})
        .set_stride({s_.length * stride, s_.head_size, stride, 1})
        .set_data_type(DataType_t::BFLOAT16);
    if (offsets) tensor.set_ragged_offset(offsets);
    return tensor;
  }
  Attributes& place_lse(Attributes& tensor) {
    tensor.set_name("lse")
        .set_uid(kLse)
        .set_dim({s_.entries, s_.heads, s_.length, 1})
        .set_data_type(DataType_t::FLOAT);
    if (!s_.is_packed()) return tensor.set_stride({s_.heads * s_.length, s_.length, 1, 1});
    return tensor.set_stride({s_.length * s_.lse_stride, 1, s_.lse_stride, 1})
        .set_ragged_offset(lse_offsets_);
  }

  GraphTensor query_part(TensorId id) {
    Attributes tensor;
    return graph_.tensor(place(tensor, id, s_.heads, s_.qkv_stride, qkv_offsets_));
  }
  GraphTensor kv_part(TensorId id) {
    Attributes tensor;
    return graph_.tensor(place(tensor, id, s_.kv_heads, s_.qkv_stride, qkv_offsets_));
  }

  const SdpaShape s_;
  Graph& graph_;
  GraphTensor qkv_offsets_, out_offsets_, lse_offsets_, kv_gradient_offsets_;
  GraphTensor query_lengths_, key_lengths_;
};

// cudnn-frontend's texts have several lines, and list every kernel that it tried.
std::string brief(const std::string& text) {
  constexpr size_t kLength = 300;
  std::string line = text.substr(0, kLength);
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  return text.size() > kLength ? line + " ..." : line;
}

// The functions of cuDNN that cudnn-frontend does not wrap in the same way in all versions.
struct Cudnn {
  decltype(&cudnnCreate) create = nullptr;
  decltype(&cudnnDestroy) destroy = nullptr;
  decltype(&cudnnSetStream) set_stream = nullptr;
  decltype(&cudnnGetVersion) version = nullptr;
  decltype(&cudnnGetErrorString) error_string = nullptr;
};

// What cuDNN and cudnn-frontend load in their turn, by these names: what is loaded already is
// found. They say themselves what they miss.
void load_companions() {
  for (const char* const name : {"libcublasLt", "libnvrtc"})
    static_cast<void>(load_library(toolkit_library(name)));
  const auto runtime = load_library(toolkit_library("libcudart"));
  if (runtime) setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime->path.c_str(), 0);
}

base::Result<Cudnn> load_functions() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const base::Result<Library> library = load_cudnn_library();
  if (!library) return base::Failure{library.reason()};
  load_companions();
  cudnn_frontend::cudnn_dlhandle = library->handle;
  Cudnn cudnn;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
        find_function(*library, name));
    return function != nullptr;
  };
  if (!find(cudnn.create, "cudnnCreate") || !find(cudnn.destroy, "cudnnDestroy") ||
      !find(cudnn.set_stream, "cudnnSetStream") || !find(cudnn.version, "cudnnGetVersion") ||
      !find(cudnn.error_string, "cudnnGetErrorString")) {
    return base::Failure{fmt::format("{} lacks functions of cuDNN 9", library->path)};
  }
  return cudnn;
}

base::Result<void> check_version(size_t version) {
  const std::string name =
      fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  if (version < 90600) {
    return base::Failure{name + " is too old: packed documents with shared key heads need 9.6.0"};
  }
  if (version == 91000 || version == 91001) {
    return base::Failure{name + " computes wrong gradients of attention, which 9.10.2 mended"};
  }
  return {};
}

class CudnnSdpa final : public Sdpa {
 public:
  CudnnSdpa(const Cudnn& cudnn, cudnnHandle_t handle, std::shared_ptr<Graph> graph,
            int64_t workspace_bytes)
      : cudnn_(cudnn),
        handle_(handle),
        graph_(std::move(graph)),
        workspace_bytes_(workspace_bytes) {}

  int64_t workspace_bytes() const override { return workspace_bytes_; }

  void run(const SdpaBuffers& buffers, cudaStream_t stream) override {
    const cudnnStatus_t status = cudnn_.set_stream(handle_, stream);
    if (status != CUDNN_STATUS_SUCCESS) fail(cudnn_.error_string(status));
    std::unordered_map<int64_t, void*> tensors;
    const auto add = [&](TensorId id, const void* data) {
      if (data != nullptr) tensors.emplace(id, const_cast<void*>(data));
    };
    add(kQuery, buffers.query);
    add(kKey, buffers.key);
    add(kValue, buffers.value);
    add(kOut, buffers.out);
    add(kLse, buffers.lse);
    add(kMask, buffers.mask);
    add(kOutGradient, buffers.out_gradient);
    add(kQueryGradient, buffers.query_gradient);
    add(kKeyGradient, buffers.key_gradient);
    add(kValueGradient, buffers.value_gradient);
    add(kQueryLengths, buffers.lengths);
    add(kKeyLengths, buffers.lengths);
    add(kQkvOffsets, buffers.qkv_offsets);
    add(kOutOffsets, buffers.out_offsets);
    add(kLseOffsets, buffers.lse_offsets);
    add(kKvGradientOffsets, buffers.kv_gradient_offsets);
    if (const auto done = execute(tensors, buffers.workspace); !done) fail(done.reason());
  }

 private:
  // cudnn-frontend throws where a library or a symbol is missing, which may show only here: cuDNN
  // loads its parts when it first needs them.
  base::Result<void> execute(std::unordered_map<int64_t, void*>& tensors, void* workspace) {
    try {
      auto result = graph_->execute(handle_, tensors, workspace);
      if (result.is_bad()) return base::Failure{result.get_message()};
    } catch (const std::runtime_error& error) {
      return base::Failure{error.what()};
    }
    return {};
  }

  [[noreturn]] static void fail(const std::string& reason) {
    throw base::resource_lost(
        fmt::format("cuDNN, running attention: {}", brief(reason)),
        "Start the node again; if it comes back, set node.attention to plain.");
  }

  const Cudnn& cudnn_;
  const cudnnHandle_t handle_;
  const std::shared_ptr<Graph> graph_;
  const int64_t workspace_bytes_;
};

class CudnnBuilder final : public SdpaBuilder {
 public:
  CudnnBuilder(const Cudnn& cudnn, cudnnHandle_t handle) : cudnn_(cudnn), handle_(handle) {}
  ~CudnnBuilder() override { cudnn_.destroy(handle_); }
  CudnnBuilder(const CudnnBuilder&) = delete;
  CudnnBuilder& operator=(const CudnnBuilder&) = delete;

  base::Result<std::unique_ptr<Sdpa>> build(const SdpaShape& shape) override {
    // cudnn-frontend reports by results, but throws where a library or a symbol is missing.
    try {
      auto graph = std::make_shared<Graph>();
      describe_graph(shape, *graph);
      int64_t workspace_bytes = 0;
      auto result = graph->validate();
      if (result.is_good()) result = graph->build_operation_graph(handle_);
      if (result.is_good()) result = graph->create_execution_plans({cudnn_frontend::HeurMode_t::A});
      if (result.is_good()) result = graph->check_support(handle_);
      if (result.is_good()) result = graph->build_plans(handle_);
      if (result.is_good()) result = graph->get_workspace_size(workspace_bytes);
      if (result.is_bad()) return base::Failure{brief(result.get_message())};
      return std::unique_ptr<Sdpa>(
          std::make_unique<CudnnSdpa>(cudnn_, handle_, std::move(graph), workspace_bytes));
    } catch (const std::runtime_error& error) {
      return base::Failure{brief(error.what())};
    }
  }

 private:
  const Cudnn cudnn_;
  const cudnnHandle_t handle_;
};

}  // namespace

void describe_graph(const SdpaShape& shape, Graph& graph) {
  Description description(shape, graph);
  if (shape.pass == Pass::kBackward) {
    description.backward();
  } else {
    description.forward();
  }
}

base::Result<std::unique_ptr<SdpaBuilder>> load_cudnn() {
  const base::Result<Cudnn> cudnn = load_functions();
  if (!cudnn) return base::Failure{cudnn.reason()};
  const base::Result<void> version = check_version((*cudnn).version());
  if (!version) return base::Failure{version.reason()};
  cudnnHandle_t handle = nullptr;
  const cudnnStatus_t status = (*cudnn).create(&handle);
  if (status != CUDNN_STATUS_SUCCESS) {
    return base::Failure{fmt::format("cuDNN does not start ({})", (*cudnn).error_string(status))};
  }
  auto builder = std::make_unique<CudnnBuilder>(*cudnn, handle);
  // Whether cuDNN, and what it loads in its turn, can make kernels for this GPU.
  const auto trial = builder->build({.entries = 1,
                                     .length = 128,
                                     .heads = 1,
                                     .kv_heads = 1,
                                     .head_size = 64,
                                     .qkv_stride = 192,
                                     .out_stride = 64});
  if (!trial) return base::Failure{fmt::format("cuDNN has no attention here: {}", trial.reason())};
  return std::unique_ptr<SdpaBuilder>(std::move(builder));
}

}  // namespace cuda
