// Two ways to do attention: cuDNN's fused kernels, and our own plain ones, which run everywhere.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>

#include "backend/ops.h"
#include "base/error.h"
#include "cuda/scratch.h"

namespace cuda {

class Attention {
 public:
  virtual ~Attention() = default;
  virtual void forward(const backend::AttentionForwardArgs& args, cudaStream_t stream) = 0;
  virtual void backward(const backend::AttentionBackwardArgs& args, cudaStream_t stream) = 0;
};

// attention.cu. Deterministic, no atomics; some hundred times slower than tensor cores. Head sizes
// up to 256, even.
std::unique_ptr<Attention> make_plain_attention(Scratch& scratch);

// attention_cudnn.cpp. Fails with the reason if this program was built without cudnn-frontend, or
// cuDNN cannot be loaded, is too old, or does not know this GPU. Graphs are built at the first call
// of a shape, for some seconds; shapes that cuDNN does not support go to plain attention.
//   deterministic: the backward runs by groups of heads, because that algorithm needs
//   heads * T^2 * 2 bytes of workspace, and packed documents cost as much as single ones.
base::Result<std::unique_ptr<Attention>> make_cudnn_attention(Scratch& scratch, bool deterministic);

}  // namespace cuda
