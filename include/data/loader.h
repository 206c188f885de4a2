// Batches ahead of time: one thread fills rows while the device computes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/sampler.h"

namespace data {

// One step's rows of one rank: rows * T entries each, row after row.
struct Batch {
  int64_t step = 0;
  std::vector<int32_t> tokens, targets, document_starts;
  int64_t target_count = 0;  // Targets that count (not -1).
};

struct LoaderOptions {
  int64_t part = 0;
  int64_t rank = 0;
  int64_t ranks = 1;
  int64_t rows_per_rank = 1;  // Per step, all micro-batches together.
  int64_t prefetch = 2;       // Steps made ahead.
};

class Loader {
 public:
  // `sampler` outlives the object. The position to save is the number of the next step, nothing
  // else.
  Loader(const Sampler& sampler, const LoaderOptions& options, int64_t first_step);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The batch of the next step. An error of the reading thread is thrown here, behind the batches
  // made before it.
  Batch next();
  // Goes on from another step; what was made ahead is dropped.
  void seek(int64_t step);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace data
