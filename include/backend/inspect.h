// What a machine has for the CUDA backend, for `atoll inspect device` and for whoever looks for a
// fault.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace backend {

struct CudaDeviceFacts {
  std::string name;
  std::string compute_capability;  // "9.0"
  int64_t total_bytes = 0, free_bytes = 0;
};

struct CudaLibraryFacts {
  std::string name;     // "libcudnn.so.9"
  std::string purpose;  // "attention"
  std::string path;     // Empty: it was not found.
  std::string version;  // "9.12.0"
  std::string problem;  // Why it cannot be used; empty: it can.
};

struct CudaFacts {
  bool is_built = false;        // Is the CUDA backend in this binary?
  std::string runtime_version;  // Of the toolkit of the build: "13.0".
  std::string driver_version;   // The newest CUDA that the driver knows; empty: there is no driver.
  std::string problem;          // Why no device can be used; empty: there is one.
  std::vector<CudaDeviceFacts> devices;
  std::vector<CudaLibraryFacts> libraries;
};

// Loads every library that can be had. Never throws.
CudaFacts inspect_cuda();

}  // namespace backend
