// cudnn-frontend's headers, so configured that they call cuDNN through
// cudnn_frontend::cudnn_dlhandle and need no JSON library. Every file that includes them must do it
// this way.
#pragma once

#include <cuda_runtime_api.h>

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

static_assert(CUDNN_FRONTEND_VERSION >= 10800, "cudnn-frontend 1.8 or newer is needed");
