#include "outer/trimmed_sum.h"

#include <algorithm>

namespace outer {

namespace {

// Elements at a time: few enough that all rows and ranks of 64 parts stay in a core's caches.
constexpr int64_t kElements = 256;

// Every pair of rows is compared once, for all elements: plain loops that become vector
// instructions, where sorting each element's numbers would be a branch per comparison.
void rank(std::span<const std::span<float>> rows, int64_t first, int64_t count,
          std::vector<int32_t>& ranks) {
  std::ranges::fill(ranks, 0);
  for (size_t high = 1; high < rows.size(); ++high) {
    const float* const __restrict b = rows[high].data() + first;
    int32_t* const __restrict rank_of_b = ranks.data() + int64_t(high) * kElements;
    for (size_t low = 0; low < high; ++low) {
      const float* const __restrict a = rows[low].data() + first;
      int32_t* const __restrict rank_of_a = ranks.data() + int64_t(low) * kElements;
      for (int64_t k = 0; k < count; ++k) {
        const int32_t is_above = a[k] > b[k] ? 1 : 0;
        rank_of_a[k] += is_above;
        rank_of_b[k] += 1 - is_above;
      }
    }
  }
}

}  // namespace

void trimmed_sum(std::span<const std::span<float>> rows, std::span<const float> factors,
                 int64_t trimmed, std::span<float> sum, std::span<float> weight) {
  std::ranges::fill(sum, 0.0f);
  std::ranges::fill(weight, 0.0f);
  std::vector<int32_t> ranks(rows.size() * size_t(kElements));
  const auto lowest = int32_t(trimmed), highest = int32_t(int64_t(rows.size()) - 1 - trimmed);
  for (int64_t first = 0; first < int64_t(sum.size()); first += kElements) {
    const int64_t count = std::min(kElements, int64_t(sum.size()) - first);
    rank(rows, first, count, ranks);
    for (size_t i = 0; i < rows.size(); ++i) {
      const float factor = factors[i];
      float* const __restrict row = rows[i].data() + first;
      const int32_t* const __restrict ranks_of_row = ranks.data() + int64_t(i) * kElements;
      float* const __restrict sums = sum.data() + first;
      float* const __restrict weights = weight.data() + first;
      for (int64_t k = 0; k < count; ++k) {
        const bool counts = (ranks_of_row[k] >= lowest) & (ranks_of_row[k] <= highest);
        const float product = factor * row[k];
        const float addend = counts ? product : 0.0f, weight_of_it = counts ? factor : 0.0f;
        row[k] = addend;
        sums[k] = sums[k] + addend;
        weights[k] = weights[k] + weight_of_it;
      }
    }
  }
}

}  // namespace outer
