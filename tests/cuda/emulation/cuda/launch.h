// The emulation's side of cuda/launch.h, which it hides by standing earlier in the include path.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/check.h"
#include "emulation/fake_device.h"

namespace cuda {

template <class T>
T* shared_memory() {
  return static_cast<T*>(emulation::shared_memory());
}

struct Grid {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
            const Arguments&... arguments) {
  check(emulation::launch_status(stream), "starting a kernel");
  const auto size = [](const dim3& d) { return emulation::Size3{d.x, d.y, d.z}; };
  emulation::run_grid(size(grid.blocks), size(grid.threads), grid.shared_bytes,
                      [&] { kernel(Parameters(arguments)...); });
}

}  // namespace cuda
