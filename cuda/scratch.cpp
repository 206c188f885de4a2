#include "cuda/scratch.h"

#include "cuda/check.h"

namespace cuda {

Scratch::~Scratch() {
  cudaFree(memory_);
}

void* Scratch::at_least(int64_t byte_count) {
  if (byte_count <= byte_count_) return memory_;
  CHECK(!is_steady_, "{} bytes of scratch in steady state, {} are there", byte_count, byte_count_);
  check(cudaFree(memory_), "freeing scratch memory");  // Waits for whoever still uses it.
  memory_ = nullptr;
  byte_count_ = 0;
  check(cudaMalloc(&memory_, size_t(byte_count)), "allocating scratch memory");
  byte_count_ = byte_count;
  return memory_;
}

}  // namespace cuda
