#include <algorithm>
#include <cmath>

#include "observe/board.h"

namespace observe {

void Curve::add(double x, double y) {
  if (!std::isfinite(x) || !std::isfinite(y)) return;
  if (!points_.empty() && points_.back().count < stride_) {
    Point& last = points_.back();
    last.x = x;
    last.sum += y;
    ++last.count;
    return;
  }
  if (points_.size() == kPointsMax) merge_neighbours();
  points_.push_back({.x = x, .sum = y, .count = 1});
}

void Curve::drop_from(double x) {
  while (!points_.empty() && points_.back().x >= x) points_.pop_back();
}

void Curve::merge_neighbours() {
  for (size_t i = 0; i < kPointsMax / 2; ++i) {
    const Point &first = points_[2 * i], &second = points_[2 * i + 1];
    points_[i] = {
        .x = second.x, .sum = first.sum + second.sum, .count = first.count + second.count};
  }
  points_.resize(kPointsMax / 2);
  stride_ *= 2;
}

void Quantiles::add(double value) {
  if (!std::isfinite(value)) return;
  if (samples_.size() < kSamplesMax) return samples_.push_back(value);
  samples_[next_] = value;
  next_ = (next_ + 1) % kSamplesMax;
}

// The nearest rank: always a value that there was.
double Quantiles::at(double share) const {
  if (samples_.empty()) return kUnknown;
  std::vector<double> sorted = samples_;
  const auto rank = size_t(std::ceil(share * double(sorted.size())));
  const auto place = sorted.begin() + int64_t(std::clamp<size_t>(rank, 1, sorted.size()) - 1);
  std::nth_element(sorted.begin(), place, sorted.end());
  return *place;
}

}  // namespace observe
