// One dataset as an endless stream of training pairs: pass after pass over its documents, each pass
// in a random order of its own. A window is a range of this stream, so nothing is dropped where two
// passes meet.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "data/dataset_content.h"
#include "data/pair_sequence.h"

namespace data {

// Decides which documents are kept for validation.
struct Split {
  uint64_t seed = 0;
  double validation_fraction = 0;
  bool is_held_out(DocumentName name) const;
};

// A document of fewer than two tokens has no pair and takes no part in anything.
inline constexpr int64_t kDocumentTokensMin = 2;

// Thread safe. The orders of two passes are kept, because windows around a border need both.
class TrainingStream {
 public:
  // `corpus` outlives the object; `is_held_out` says it of every document. REQUIRES: the dataset
  // has training pairs; `pairs_per_pass` says how many.
  TrainingStream(const Corpus& corpus, uint64_t seed, uint32_t dataset,
                 std::vector<bool> is_held_out, int64_t pairs_per_pass);

  // Fills the row with the pairs from `first_pair` on.
  void fill(int64_t first_pair, const Row& row) const;

 private:
  std::shared_ptr<const PairSequence> pass(int64_t number) const;
  std::shared_ptr<const PairSequence> make_pass(int64_t number) const;

  const Corpus& corpus_;
  const uint64_t seed_;
  const uint32_t dataset_;
  const std::vector<bool> is_held_out_;
  const int64_t pairs_per_pass_;
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<int64_t, std::shared_ptr<const PairSequence>>>
      passes_;  // Last used first.
};

}  // namespace data
