// Operations with a stopwatch around each: where the time of a step goes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "train/bench.h"

namespace train {

// All calls of one operation with one shape.
struct TimedPart {
  std::string name;  // "product 8192x6144x4096", "attention backward"
  PartOf part_of = PartOf::kBlocks;
  int64_t calls = 0;
  double seconds = 0;  // On the device, of all calls.
  double flop = 0;     // Of all calls; 0 where bytes say more.
  double bytes = 0;    // Read and written, each tensor once; what is added to counts twice.
};

// Passes every operation on. Times are kept from start() to stop(); outside of it nothing is added.
// An event before and one behind each operation cost a few microseconds of the host, and keep the
// device from overlapping neighbours: sums are a little longer than the step.
class TimedOps : public backend::Ops {
 public:
  // `device` outlives the object. A product with a side of `vocabulary` counts as the head's.
  static std::unique_ptr<TimedOps> create(std::unique_ptr<backend::Ops> ops,
                                          backend::Device& device, int64_t vocabulary);
  // `mean_keys`: how many keys a token of the batch attends to on average, by which the FLOP of
  // attention are counted: T/2 where each row is one document.
  virtual void start(double mean_keys) = 0;
  // Waits for the device. Longest first.
  virtual std::vector<TimedPart> stop() = 0;
};

}  // namespace train
