// Randomness that is a pure function: every choice the sampler makes has a purpose, and each (seed,
// purpose, dataset) has a random key of its own, so that no two choices depend on each other.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/hash.h"

namespace data {

// The numbers are part of the rule that decides which tokens come; see
// docs/formats/token-dataset.md.
enum class Purpose : uint64_t {
  kHoldOut = 1,
  kPassOrder = 2,
  kMixing = 3,
  kValidationOrder = 4,
  kWindowOrder = 5,
};

inline uint64_t random_key(uint64_t seed, Purpose purpose, int64_t dataset = 0) {
  const auto words = base::philox(seed, uint64_t(purpose), uint64_t(dataset));
  return uint64_t{words[0]} | uint64_t{words[1]} << 32;
}

// Fisher-Yates, from the last element down.
template <class T>
void shuffle(std::vector<T>& items, base::Random random) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random.below(i)]);
}

}  // namespace data
