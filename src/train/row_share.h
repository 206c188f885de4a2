// How the rows of a step are cut into micro-batches and handed to the ranks.
#pragma once

#include <cstdint>

#include "base/math.h"
#include "train/run_config.h"

namespace train {

// In turn j, rank r computes rows [(j * ranks + r) * micro_batch_rows, + micro_batch_rows), as far
// as there are so many; what is missing is filled up with rows that do not count.
struct RowShare {
  int64_t micro_batch_rows = 1;  // Of one rank.
  int64_t turns = 1;             // Micro-batches of each rank and step.

  static RowShare of(const TrainingConfig& training, int ranks) {
    const int64_t rows_per_rank = base::div_ceil(training.batch_rows, int64_t{ranks});
    const int64_t turns = base::div_ceil(rows_per_rank, training.micro_batch_rows);
    // As few turns as the largest micro-batch allows, and then as small a one as these allow.
    return {.micro_batch_rows = base::div_ceil(rows_per_rank, turns), .turns = turns};
  }
};

}  // namespace train
