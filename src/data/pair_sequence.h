// Documents laid end to end as one sequence of pairs (input token, target token). A document of n
// tokens has n-1 pairs, so no pair crosses a border, and a prefix sum of n-1 finds any pair by
// binary search.
#pragma once

#include <cstdint>
#include <vector>

#include "data/sampler.h"
#include "data/token_dataset.h"

namespace data {

struct Corpus {
  std::vector<const TokenDataset*> datasets;
  int64_t vocabulary = 0;
};

struct DocumentRef {
  uint32_t dataset = 0;
  uint32_t document = 0;
};

// Immutable. 16 bytes per document. `corpus` outlives the object.
class PairSequence {
 public:
  PairSequence(const Corpus& corpus, std::vector<DocumentRef> documents);

  int64_t pair_count() const { return starts_.back(); }

  // Puts the pairs from `first_pair` on into `row` from `position` on, until the row is full or the
  // sequence ends. Returns the position behind the last one. Throws bad_input for a token id
  // outside the vocabulary.
  int64_t fill(int64_t first_pair, int64_t position, const Row& row) const;

 private:
  void copy(const DocumentRef& from, int64_t first_pair, const Row& part) const;

  const Corpus& corpus_;
  const std::vector<DocumentRef> documents_;
  std::vector<int64_t>
      starts_;  // The number of each document's first pair; at the end the count of all.
};

}  // namespace data
