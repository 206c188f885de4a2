// The functions of cuBLASLt that matmul.cpp calls, under their own names: each loads the library at
// its first call and passes its arguments on. So the program starts without the library, and takes
// it from wherever it is (libraries.h).
#include <cublasLt.h>

#include "cuda/libraries.h"

namespace {

const cuda::Library& library() {
  static const base::Result<cuda::Library> found =
      cuda::load_library(cuda::toolkit_library("libcublasLt"));
  if (!found) {
    throw base::bad_input(
        found.reason(),
        "Install cuBLAS for this CUDA version (pip install nvidia-cublas will do), name its folder "
        "in ATOLL_CUDA_LIBRARIES, or set node.device to cpu.");
  }
  return *found;
}

template <class Function>
Function* function(const char* name) {
  void* const address = cuda::find_function(library(), name);
  if (address == nullptr)
    throw base::bad_input(library().path + " has no " + name, "Install a newer cuBLAS.");
  return reinterpret_cast<Function*>(address);
}

}  // namespace

// The result of the function of the same name.
#define FORWARD(name, ...)                                        \
  static auto* const forwarded = function<decltype(name)>(#name); \
  return forwarded(__VA_ARGS__)

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  FORWARD(cublasLtCreate, handle);
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  FORWARD(cublasLtDestroy, handle);
}
size_t cublasLtGetVersion() {
  FORWARD(cublasLtGetVersion);
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  FORWARD(cublasLtMatmul, handle, description, alpha, a, a_layout, b, b_layout, beta, c, c_layout,
          d, d_layout, algorithm, workspace, workspace_bytes, stream);
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
  FORWARD(cublasLtMatmulAlgoGetHeuristic, handle, description, a, b, c, d, preference, requested,
          results, count);
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  FORWARD(cublasLtMatmulAlgoCheck, handle, description, a, b, c, d, algorithm, result);
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t compute, cudaDataType_t scale) {
  FORWARD(cublasLtMatmulDescCreate, description, compute, scale);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  FORWARD(cublasLtMatmulDescDestroy, description);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t byte_count) {
  FORWARD(cublasLtMatmulDescSetAttribute, description, attribute, value, byte_count);
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  FORWARD(cublasLtMatmulPreferenceCreate, preference);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  FORWARD(cublasLtMatmulPreferenceDestroy, preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t byte_count) {
  FORWARD(cublasLtMatmulPreferenceSetAttribute, preference, attribute, value, byte_count);
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  FORWARD(cublasLtMatrixLayoutCreate, layout, type, rows, columns, stride);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  FORWARD(cublasLtMatrixLayoutDestroy, layout);
}

}  // extern "C"
