// `atoll bench step`: how fast training goes on this machine, next to what its matrix products
// alone reach.
#pragma once

#include <cstdint>
#include <string>

#include "train/run_config.h"

namespace train {

struct BenchStepReport {
  std::string device;
  std::string model;  // The config's name.
  int64_t parameters = 0;
  double tokens_per_second = 0;  // Median over the timed steps, forward + backward + optimiser.
  double tflops_per_second = 0;  // Causal FLOP: what is really computed.
  double gemm_tflops_per_second =
      0;  // Largest rate over the model's own product shapes, same threads, same call.
  double fraction_of_gemm_rate = 0;  // tflops_per_second / gemm_tflops_per_second.
  double mfu_palm =
      0;  // PaLM FLOP over the device's peak; on CPUs the measured GEMM rate is the peak.
  double mfu_causal = 0;
  int64_t peak_memory_bytes = 0;  // Of the process.
  int64_t steps = 0;
};
// Random tokens in documents of about 1000; `steps` timed steps after two warm-up steps.
BenchStepReport bench_step(const RunConfig& config, int64_t steps);

// FLOP/s of the device's products at a few large shapes, the best of several runs of `seconds` in
// all.
double measure_gemm_rate(backend::Backend& backend, double seconds);

}  // namespace train
