// Which samples of the run's one stream (data/sampler.h) are somebody's to train on, in the order
// in which they are used.
#pragma once

#include <cstdint>
#include <vector>

namespace data {

struct SampleRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t end() const { return first + count; }
  bool operator==(const SampleRange&) const = default;
};

class SampleRanges {
 public:
  // Behind what is there. REQUIRES: it is not empty.
  void add(const SampleRange& range);
  int64_t count() const { return count_; }  // Of samples.
  // The first `count` samples, which are then no longer here. REQUIRES: so many are here.
  std::vector<SampleRange> take(int64_t count);
  void drop_below(int64_t sample);
  // None is empty, and none begins where the one before ends.
  const std::vector<SampleRange>& list() const { return ranges_; }

 private:
  std::vector<SampleRange> ranges_;
  int64_t count_ = 0;
};

}  // namespace data
