// Batches ahead of time: one thread fills rows while the device computes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/sample_ranges.h"
#include "data/sampler.h"

namespace data {

// One step's rows: rows * T entries each, row after row.
struct Batch {
  int64_t step = 0;  // For whoever trains on it; a loader leaves it at 0.
  std::vector<int32_t> tokens, targets, document_starts;
  int64_t target_count = 0;  // Targets that count (not -1).
};

struct LoaderOptions {
  int64_t rows = 1;      // Of a batch: of all micro-batches and ranks of a node together.
  int64_t prefetch = 2;  // Batches made ahead.
};

// A batch is the next `rows` samples of those that were added, also across the ends of ranges.
class Loader {
 public:
  // `sampler` outlives the object.
  Loader(const Sampler& sampler, const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Behind those that are there. Throws bad_input for samples that the sampler does not have.
  void add(const SampleRange& range);
  // What next() has not returned, whether made ahead or not: the position to save.
  const SampleRanges& left() const;
  bool has_batch() const;
  // REQUIRES: has_batch(). An error of the reading thread is thrown here, behind the batches made
  // before it.
  Batch next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace data
