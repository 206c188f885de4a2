// cuDNN as a library: found, whole, and for this program's CUDA.
#pragma once

#include "cuda/libraries.h"

namespace cuda {

// libcudnn.so.9 only passes calls on to the libraries beside it, and ends the process where one is
// missing: so they are looked for before it is called. Fails with what is wrong, also if it was
// built for another major version of CUDA.
base::Result<Library> load_cudnn_library();

}  // namespace cuda
