// The outer loop's part of a run's config.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace outer {

struct OuterConfig {
  int64_t inner_steps = 100;  // H
  int64_t fragments = 1;      // P; 1 is plain DiLoCo.
  double learning_rate = 0.7;
  double momentum = 0.9;  // Nesterov.
  // Nothing of the outer optimiser's rate and momentum before the first round; both rise evenly
  // over so many.
  int64_t warmup_rounds = 0;
  std::string codec = "int8";         // Of contributions.
  std::string result_codec = "same";  // Of results: what everybody gets back.
  double codebook_sigmas = 6;         // Of int8-codebook: its range to either side.
  // A round's result is merged into the node's parameters so many steps after it was begun, or as
  // soon after as it is there, at most overlap_steps_max steps after. 0 and 0: blocking.
  int64_t overlap_steps = 0;       // tau
  int64_t overlap_steps_max = 0;   // From overlap_steps on, below H.
  std::string merge = "rebase";    // rebase | overwrite | lerp, see outer/outer_state.h.
  double merge_local_share = 0.5;  // Of lerp.
  std::string mean = "clipped";    // Of the contributions: mean | clipped | trimmed.
  double trim_share = 0.25;        // Of trimmed: at either end.
  // A contribution's norm in a chunk, times the median's; 0: no bound.
  double contribution_norm_max = 10;
};
void describe(base::ConfigVisitor& v, OuterConfig& config);
// Throws bad_input that names `path` for values that do not go together.
void validate(const OuterConfig& config, const std::string& path);

// The name of the codec of results.
const std::string& result_codec(const OuterConfig& config);
// Of a round's results for so many elements.
int64_t result_bytes(const OuterConfig& config, int64_t element_count);

}  // namespace outer
