// Attention by graphs, apart from the library that makes them: for tests.
#pragma once

#include <memory>

#include "base/math.h"
#include "cuda/attention.h"
#include "cuda/cudnn_graph.h"

namespace cuda {

struct GraphAttentionOptions {
  bool deterministic = false;
  // Calls are cut into pieces, by rows of the batch and then by heads, until they need no more
  // workspace than this. (Documents as entries of a batch cannot be cut.)
  int64_t workspace_bytes_max = 768 * base::kMiB;
  int64_t mask_bytes_max = 64 * base::kMiB;  // At the same time; more only for a single row.
};

// `scratch` outlives the object. What `builder` has no graph for goes to plain attention.
std::unique_ptr<Attention> make_graph_attention(std::unique_ptr<SdpaBuilder> builder,
                                                Scratch& scratch,
                                                const GraphAttentionOptions& options);

}  // namespace cuda
