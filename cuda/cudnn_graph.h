// All that the backend has to do with cuDNN: attention as a graph of cudnn-frontend.
// cudnn_graph.cpp is the one file that includes its headers; cuDNN itself is loaded at run time, so
// that the program also starts where there is none. (tests/cuda/emulation/ has an interpreter of
// the same graphs.)
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>

#include "base/error.h"

// Of cudnn-frontend.
namespace cudnn_frontend::graph {
class Graph;
}

namespace cuda {

// One causal attention with scale 1 / sqrt(head_size), of a batch of `entries` sequences. All
// numbers are bf16 but lse, which is fp32. Heads of a position follow each other; the strides are
// counted in numbers, from one position to the next.
struct SdpaShape {
  enum class Pass { kEvaluation, kForward, kBackward };

  Pass pass = Pass::kEvaluation;
  int64_t entries = 0, length = 0;  // All entries have `length` positions, or at most, if packed.
  int64_t heads = 0, kv_heads = 0, head_size = 0;
  int64_t qkv_stride = 0;  // Query, key, value, and the query's gradient.
  int64_t out_stride = 0;  // Out and its gradient.
  int64_t kv_gradient_stride = 0;
  // Packed: entries have lengths of their own and begin where tables on the device say; this is the
  // sum of the lengths. 0: entry e begins at position e * length.
  int64_t packed_positions = 0;
  // Packed: lse is (positions, lse_stride). Otherwise it is (entries, heads, length).
  int64_t lse_stride = 0;
  // If not 0: a mask (entries, length, mask_stride) is added to the scores of all heads.
  int64_t mask_stride = 0;
  bool is_deterministic = false;  // The backward.

  bool is_packed() const { return packed_positions > 0; }
};

// Device memory of one run, 16-byte aligned.
struct SdpaBuffers {
  const void *query = nullptr, *key = nullptr, *value = nullptr;
  void* out = nullptr;   // Written by the forward, read by the backward.
  float* lse = nullptr;  // Likewise. Not of an evaluation.
  const void* mask = nullptr;
  const void* out_gradient = nullptr;
  void *query_gradient = nullptr, *key_gradient = nullptr, *value_gradient = nullptr;
  // Packed: (entries), and (entries + 1) numbers before each entry; entries may be empty.
  int32_t* lengths = nullptr;
  int64_t *qkv_offsets = nullptr, *out_offsets = nullptr, *lse_offsets = nullptr,
          *kv_gradient_offsets = nullptr;
  void* workspace = nullptr;
};

// A graph, ready to run.
class Sdpa {
 public:
  virtual ~Sdpa() = default;
  virtual int64_t workspace_bytes() const = 0;
  // Throws resource_lost.
  virtual void run(const SdpaBuffers& buffers, cudaStream_t stream) = 0;
};

class SdpaBuilder {
 public:
  virtual ~SdpaBuilder() = default;
  // Takes a second or so: kernels are compiled. Fails if cuDNN has none for this shape and device.
  virtual base::Result<std::unique_ptr<Sdpa>> build(const SdpaShape& shape) = 0;
};

// Fails if cuDNN cannot be loaded, is too old, or does not know the current device. The builder
// outlives its graphs.
base::Result<std::unique_ptr<SdpaBuilder>> load_cudnn();

// What a builder begins with. For tests, which can have it checked without a device. `graph` is
// empty before.
void describe_graph(const SdpaShape& shape, cudnn_frontend::graph::Graph& graph);

}  // namespace cuda
