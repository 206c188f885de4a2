// Passes are made when they are first asked for, which takes about as long as a scan over the
// index.
#include "data/training_stream.h"

#include <algorithm>

#include "data/random_choice.h"

namespace data {
namespace {
constexpr size_t kCachedPasses = 2;
}

bool Split::is_held_out(DocumentName name) const {
  base::Random random(random_key(seed, Purpose::kHoldOut), name);
  return random.uniform() < validation_fraction;
}

TrainingStream::TrainingStream(const Corpus& corpus, uint64_t seed, uint32_t dataset,
                               std::vector<bool> is_held_out, int64_t pairs_per_pass)
    : corpus_(corpus),
      seed_(seed),
      dataset_(dataset),
      is_held_out_(std::move(is_held_out)),
      pairs_per_pass_(pairs_per_pass) {}

void TrainingStream::fill(int64_t first_pair, const Row& row) const {
  for (int64_t position = 0; position < int64_t(row.tokens.size());) {
    const int64_t pair = first_pair + position;
    position = pass(pair / pairs_per_pass_)->fill(pair % pairs_per_pass_, position, row);
  }
}

// Whoever needs a pass that is being made waits for it under the lock.
std::shared_ptr<const PairSequence> TrainingStream::pass(int64_t number) const {
  std::lock_guard lock(mutex_);
  const auto found = std::find_if(passes_.begin(), passes_.end(),
                                  [&](const auto& cached) { return cached.first == number; });
  if (found != passes_.end()) {
    std::rotate(passes_.begin(), found, found + 1);
  } else {
    if (passes_.size() == kCachedPasses) passes_.pop_back();
    passes_.insert(passes_.begin(), {number, make_pass(number)});
  }
  return passes_.front().second;
}

std::shared_ptr<const PairSequence> TrainingStream::make_pass(int64_t number) const {
  const TokenDataset& dataset = *corpus_.datasets[dataset_];
  std::vector<DocumentRef> documents;
  for (int64_t document = 0; document < dataset.document_count(); ++document) {
    if (dataset.document_length(document) < kDocumentTokensMin) continue;
    if (is_held_out_[size_t(document)]) continue;
    documents.push_back({.dataset = dataset_, .document = uint32_t(document)});
  }
  shuffle(documents,
          base::Random(random_key(seed_, Purpose::kPassOrder, dataset_), uint64_t(number)));
  auto sequence = std::make_shared<PairSequence>(corpus_, std::move(documents));
  CHECK(sequence->pair_count() == pairs_per_pass_, "{} pairs, expected {}", sequence->pair_count(),
        pairs_per_pass_);
  return sequence;
}

}  // namespace data
