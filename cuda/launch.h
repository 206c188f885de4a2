// How kernels are started and get their shared memory: the only two things that are spelled
// otherwise where the kernels run on a processor. tests/cuda/emulation/ has a header of the same
// name for that; everything else in a .cu file is plain CUDA.
//
// Rules for kernels, so that both can run them: shared memory only from shared_memory(); barriers,
// shuffles and votes over whole warps and whole blocks; blocks never wait for each other; no
// tensor-core, TMA or inline PTX instructions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/check.h"

namespace cuda {

// The block's dynamic shared memory, of which launch() was told the size. Its content is undefined.
template <class T>
__device__ T* shared_memory() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<T*>(memory);
}

struct Grid {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;  // At most 48 KiB.
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
            const Arguments&... arguments) {
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, stream>>>(Parameters(arguments)...);
  check(cudaGetLastError(), "starting a kernel");
}

}  // namespace cuda
