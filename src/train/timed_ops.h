// Operations with a stopwatch around each: where the time of a step goes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace train {

// All calls of one operation with one shape.
struct TimedPart {
  std::string name;  // "product 8192x6144x4096", "attention backward"
  int64_t calls = 0;
  double seconds = 0;  // On the device, of all calls.
  double flop = 0;     // Of all calls; 0 where bytes say more.
  double bytes = 0;    // Read and written, each tensor once; 0 where FLOP say more.
};

// Passes every operation on. Times are kept from start() to stop(); outside of it nothing is added.
// An event before and one behind each operation cost a few microseconds of the host, and keep the
// device from overlapping neighbours: sums are a little longer than the step.
class TimedOps : public backend::Ops {
 public:
  // `device` outlives the object.
  static std::unique_ptr<TimedOps> create(std::unique_ptr<backend::Ops> ops,
                                          backend::Device& device);
  virtual void start() = 0;
  // Waits for the device. Longest first.
  virtual std::vector<TimedPart> stop() = 0;
};

}  // namespace train
