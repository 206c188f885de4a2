// `atoll bench step`: how fast training goes on this machine, next to what its matrix products
// alone reach.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/run_config.h"

namespace train {

// How often a part happens in a step of a model with another number of blocks.
enum class PartOf : uint8_t {
  kBlocks,         // In each block.
  kBlocksAndHead,  // In each block, and once per micro-batch in the head: the norms.
  kOnce,           // In the embedding and the head, whatever the number of blocks.
  kParameters,     // In proportion to the parameters: the optimiser, norms of gradients, sums.
};

// A part of the step: all calls of one operation with one shape, in one step.
struct BenchPart {
  std::string name;
  PartOf part_of = PartOf::kBlocks;
  int64_t calls = 0;
  double seconds = 0;
  double bytes = 0;                 // Read and written; what is added to counts twice.
  double tflops_per_second = 0;     // Of products and attention; else 0.
  double gigabytes_per_second = 0;  // bytes / seconds.
  // seconds minus what the work takes at the ceilings of the same call: FLOP at the rate of
  // products, or where there are none bytes at the rate of copies. NaN without that ceiling.
  double lost_seconds = 0;
};

// A step of the same model with another number of blocks, by the parts of the measured one.
struct Extrapolation {
  int64_t blocks = 0;  // 0: none was asked for.
  double step_seconds = 0;
  double tokens_per_second = 0;
  double utilisation = 0;  // As mfu_palm, or where rows are packed as mfu_inside_documents.
};

struct ShapeRate {
  std::string shape;  // "8192x8192x8192"
  double tflops_per_second = 0;
};

struct BenchStepReport {
  std::string device;
  std::string model;  // The config's name.
  int64_t parameters = 0;
  std::string policy;            // What is recomputed, and whether the memory is lean.
  double tokens_per_second = 0;  // Median over the timed steps, forward + backward + optimiser.
  double step_seconds = 0;       // The same.
  int64_t micro_batches = 0;     // Of each rank in a step.
  int64_t document_tokens = 0;   // As in BenchOptions.
  // What is really computed: products, and attention inside documents.
  double tflops_per_second = 0;
  // Sustained rates before the model's memory is allocated, in the compute dtype, on random
  // numbers, all ranks at once. Of the best shape, of all ranks together; 0 if it failed.
  double gemm_tflops_per_second = 0;
  std::vector<ShapeRate> gemm_shapes;    // Of rank 0.
  double copy_gigabytes_per_second = 0;  // Of rank 0 inside its memory, read plus written.
  std::string ceiling_error;             // Why a rate is missing; empty: none is.
  double fraction_of_gemm_rate = 0;      // tflops_per_second / gemm_tflops_per_second.
  // By the data sheet, in the compute dtype; where nobody knows it, as on CPUs, the highest rate
  // seen, of products alone or of the steps.
  double peak_tflops_per_second = 0;
  // Over the peak. Those of whole rows are for one document per row; the other is for packed rows,
  // where most of what the conventions count is never computed. The ones that do not fit are 0.
  double mfu_palm = 0;              // PaLM FLOP.
  double mfu_causal = 0;            // Causal FLOP.
  double mfu_inside_documents = 0;  // Products, and the attention of each document's own length.
  int64_t peak_memory_bytes = 0;    // Of the process.
  int64_t ranks = 1;
  // What one step moves over a rank's link, and how long a rank's compute stood still for it.
  int64_t gathered_bytes = 0;
  int64_t reduced_bytes = 0;
  double exposed_communication_seconds = 0;
  int64_t bytes_per_rank = 0;          // Held on the device of the rank that holds most.
  int64_t planned_bytes_per_rank = 0;  // By the memory plan, with what the plan sets aside for
                                       // libraries.
  int64_t device_used_bytes = 0;       // backend::Device::used_bytes() after the steps, the most.
  int64_t steps = 0;
  double setup_seconds = 0;       // Until the first step begins, ceilings included.
  double ceiling_seconds = 0;     // Of them, for measuring the ceilings.
  std::vector<BenchPart> parts;   // Of one more step on rank 0, longest first.
  double timed_step_seconds = 0;  // Of that step.
  // Of it, what is in no part: gaps on the device, waiting for other ranks and the host. Less what
  // ran beside other parts (lean updates, weight gradients on a stream of their own), which counts
  // in both: it may be negative, and what such parts lose is then an upper bound.
  double unattributed_seconds = 0;
  Extrapolation extrapolation;
};

struct BenchOptions {
  int64_t steps = 8;
  // Mean length of the documents that a row is packed with; 0: one document per row.
  int64_t document_tokens = 1000;
  int64_t extrapolate_blocks = 0;  // See BenchStepReport::extrapolation; 0: not wanted.
};
// Random tokens; timed steps after two warm-up steps.
BenchStepReport bench_step(const RunConfig& config, const BenchOptions& options);

// What model FLOPS utilisation is a share of: by the data sheet, or where nobody knows it, as
// measured in a fifth of a second at a few large shapes. FLOP/s.
double peak_flops(backend::Backend& backend);

}  // namespace train
