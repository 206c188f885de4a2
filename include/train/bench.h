// `atoll bench step`: how fast training goes on this machine, next to what its matrix products
// alone reach.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/run_config.h"

namespace train {

// A part of the step: all calls of one operation with one shape, in one step.
struct BenchPart {
  std::string name;
  int64_t calls = 0;
  double seconds = 0;
  double tflops_per_second = 0;     // Of products and attention; else 0.
  double gigabytes_per_second = 0;  // Of everything else; else 0.
};

struct BenchStepReport {
  std::string device;
  std::string model;  // The config's name.
  int64_t parameters = 0;
  std::string policy;            // What is recomputed, and whether the memory is lean.
  double tokens_per_second = 0;  // Median over the timed steps, forward + backward + optimiser.
  double step_seconds = 0;       // The same.
  double tflops_per_second = 0;  // Causal FLOP: what is really computed.
  // The largest rate of products alone: over the model's own shapes, same threads, same call.
  double gemm_tflops_per_second = 0;
  double copy_gigabytes_per_second = 0;  // Of a copy inside the device's memory, read plus written.
  double fraction_of_gemm_rate = 0;      // tflops_per_second / gemm_tflops_per_second.
  // By the data sheet, in the compute dtype; where nobody knows it, as on CPUs, the measured rate.
  double peak_tflops_per_second = 0;
  double mfu_palm = 0;            // PaLM FLOP over the peak.
  double mfu_causal = 0;          // Causal FLOP over the peak.
  int64_t peak_memory_bytes = 0;  // Of the process.
  int64_t ranks = 1;
  // What one step moves over a rank's link, and how long a rank's compute stood still for it.
  int64_t gathered_bytes = 0;
  int64_t reduced_bytes = 0;
  double exposed_communication_seconds = 0;
  int64_t bytes_per_rank = 0;          // Held on the device of the rank that holds most.
  int64_t planned_bytes_per_rank = 0;  // By the memory plan, with what the plan sets aside for
                                       // libraries.
  int64_t steps = 0;
  std::vector<BenchPart> parts;  // Of one more step, longest first.
};

struct BenchOptions {
  int64_t steps = 8;
  // Mean length of the documents that a row is packed with; 0: one document per row.
  int64_t document_tokens = 1000;
};
// Random tokens; timed steps after two warm-up steps.
BenchStepReport bench_step(const RunConfig& config, const BenchOptions& options);

// What model FLOPS utilisation is a share of: by the data sheet, or where nobody knows it, as
// measured in a fifth of a second at a few large shapes. FLOP/s.
double peak_flops(backend::Backend& backend);

}  // namespace train
