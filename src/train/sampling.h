// Which token comes next, by a model's logits.
#pragma once

#include <cstdint>
#include <span>

#include "base/hash.h"

namespace train {

struct SamplingOptions {
  double temperature = 1;  // 0: always the likeliest token; of equal ones the first.
  int64_t top_k = 0;       // Among so many of the likeliest; 0: all.
  double top_p = 1;        // Among the likeliest that together have this probability, at least one.
};

// A token drawn from softmax(logits / temperature) over those that the options leave. REQUIRES:
// logits are finite.
int32_t choose_token(std::span<const float> logits, const SamplingOptions& options,
                     base::Random& random);

// log(sum(exp(logits))).
double log_sum_exp(std::span<const float> logits);

}  // namespace train
