#include "data/sample_ranges.h"

#include <algorithm>

#include "base/error.h"

namespace data {

void SampleRanges::add(const SampleRange& range) {
  CHECK(range.count >= 1, "{} samples", range.count);
  count_ += range.count;
  if (!ranges_.empty() && ranges_.back().end() == range.first) {
    ranges_.back().count += range.count;
  } else {
    ranges_.push_back(range);
  }
}

std::vector<SampleRange> SampleRanges::take(int64_t count) {
  CHECK(count >= 0 && count <= count_, "{} of {} samples", count, count_);
  count_ -= count;
  std::vector<SampleRange> taken;
  while (count > 0) {
    SampleRange& first = ranges_.front();
    taken.push_back({first.first, std::min(count, first.count)});
    count -= taken.back().count;
    first = {taken.back().end(), first.count - taken.back().count};
    if (first.count == 0) ranges_.erase(ranges_.begin());
  }
  return taken;
}

void SampleRanges::drop_below(int64_t sample) {
  const std::vector<SampleRange> before = std::move(ranges_);
  ranges_.clear();
  count_ = 0;
  for (const SampleRange& range : before) {
    const int64_t first = std::max(range.first, sample);
    if (first < range.end()) add({first, range.end() - first});
  }
}

}  // namespace data
