// Products by cuBLASLt. One plan per shape, made at its first use (the warm-up step): descriptors,
// and the fastest of the candidates that the library's heuristic proposes, timed on this device for
// a second at most. None of them rounds partial sums to bf16.
// The choice is kept in a file, so that the next start of the same device is quick and makes the
// same choice.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <string>

#include "backend/ops.h"

namespace cuda {

struct MatmulOptions {
  // Nothing that splits the inner dimension among blocks. The bits of a product are then a function
  // of the inputs, the shape and the device.
  bool deterministic = false;
  bool tune = true;         // False: the heuristic's first candidate.
  int multiprocessors = 0;  // That products spread over; 0: all. Collectives take the others.
  std::string cache_file;   // Empty: choices are not kept.
};

class Matmul {
 public:
  virtual ~Matmul() = default;
  // a and b bf16, out bf16 or fp32.
  virtual void run(const backend::MatmulArgs& args, cudaStream_t stream) = 0;

  static std::unique_ptr<Matmul> create(const MatmulOptions& options);
};

}  // namespace cuda
