// From which dataset each sample comes. Every block of 1024 samples
// holds each dataset's exact share, in a random order of its own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace data {

class Mixture {
 public:
  static constexpr int64_t kBlockSlots = 1024;

  // Throws bad_input unless the weights are finite and not negative with at least one above 0.
  // Shares are rounded by largest remainder; whoever has a weight above 0 has at least one slot.
  Mixture(std::span<const double> weights, uint64_t seed);

  struct Draw {
    int64_t dataset = 0;
    int64_t index = 0;  // How many samples before this one came from the same dataset.
  };
  Draw draw(int64_t sample) const;

  std::span<const int64_t> slots() const { return slots_; }  // Per dataset and block.

 private:
  uint64_t key_;
  std::vector<int64_t> slots_;
};

}  // namespace data
