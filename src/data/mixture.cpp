// A draw shuffles its block anew: some microseconds, in exchange for which there is no state.
#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "data/random_choice.h"

namespace data {
namespace {

void check_weights(std::span<const double> weights) {
  double sum = 0;
  int64_t positive_count = 0;
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight < 0) {
      throw base::bad_input(fmt::format("dataset weight {}: expected a number from 0 on", weight));
    }
    sum += weight;
    if (weight > 0) ++positive_count;
  }
  if (positive_count == 0)
    throw base::bad_input("dataset weights: none is above 0, so there is nothing to train on");
  if (!std::isfinite(sum))
    throw base::bad_input("dataset weights: their sum is too large", "they are relative");
  if (positive_count > Mixture::kBlockSlots) {
    throw base::bad_input(fmt::format("{} datasets with a weight above 0, at most {} can be mixed",
                                      positive_count, Mixture::kBlockSlots),
                          "join some of them into one");
  }
}

std::vector<int64_t> make_slots(std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> slots;
  std::vector<double> remainders;
  for (const double weight : weights) {
    const double share = weight / sum * double(Mixture::kBlockSlots);
    slots.push_back(int64_t(share));
    remainders.push_back(share - std::floor(share));
  }
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  int64_t rest = Mixture::kBlockSlots - std::accumulate(slots.begin(), slots.end(), int64_t{0});
  for (size_t i = 0; rest > 0; ++i, --rest) ++slots[order[i]];

  for (size_t i = 0; i < slots.size(); ++i) {
    if (weights[i] == 0 || slots[i] > 0) continue;
    --*std::max_element(slots.begin(), slots.end());
    slots[i] = 1;
  }
  return slots;
}

}  // namespace

Mixture::Mixture(std::span<const double> weights, uint64_t seed)
    : key_(random_key(seed, Purpose::kMixing)) {
  check_weights(weights);
  slots_ = make_slots(weights);
}

Mixture::Draw Mixture::draw(int64_t sample) const {
  const int64_t block = sample / kBlockSlots;
  std::vector<uint32_t> owners;
  owners.reserve(size_t(kBlockSlots));
  for (size_t dataset = 0; dataset < slots_.size(); ++dataset) {
    owners.insert(owners.end(), size_t(slots_[dataset]), uint32_t(dataset));
  }
  shuffle(owners, base::Random(key_, uint64_t(block)));
  const auto slot = owners.begin() + sample % kBlockSlots;
  return {.dataset = *slot,
          .index = block * slots_[*slot] + std::count(owners.begin(), slot, *slot)};
}

}  // namespace data
