// Arithmetic on the parts of a measured step: what they lose, and what another model would take.
#pragma once

#include <cstdint>
#include <vector>

#include "data/loader.h"
#include "train/bench.h"
#include "train/timed_ops.h"

namespace train {

// Keys that a token attends to, on average over all tokens of `batch`: half the length of its
// document, by which attention is T/2 where each row is one document.
double mean_keys(const data::Batch& batch, int64_t sequence_length);

// `flops` and `bytes_per_second` are what this rank reaches alone; 0: unknown.
BenchPart bench_part(const TimedPart& part, double flops, double bytes_per_second);

double seconds_of(const std::vector<BenchPart>& parts);

// How many calls, seconds and so on a part has in a step with `blocks` blocks, over those that were
// measured with `config.layers` and `micro_batches`. What happens in blocks happens a*L - b times
// per micro-batch, a and b whole: recomputation leaves out the last block. With b < L this tells a
// and b from the number of calls; full recomputation makes norms four times in a block and twice
// less, so that it takes three blocks to tell.
double growth(const BenchPart& part, const model::ModelConfig& config, int64_t micro_batches,
              int64_t blocks);

// Seconds of a step with `blocks` blocks and the same micro-batches: `step_seconds` times the ratio
// of the sums of all parts, so that what is in no part grows like the rest.
double extrapolated_step_seconds(const std::vector<BenchPart>& parts,
                                 const model::ModelConfig& config, int64_t micro_batches,
                                 double step_seconds, int64_t blocks);

}  // namespace train
