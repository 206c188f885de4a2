// One dataset as an endless stream of training pairs: pass after pass over its documents, each pass
// in a random order of its own. Windows tile this stream, so nothing is dropped where two passes
// meet. The windows that begin in a pass come in a random order too: laid out as they stand, a long
// document would fill batch after batch, on all nodes at once.
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
  struct Options {
    uint64_t seed = 0;
    uint32_t dataset = 0;           // Its place in the corpus.
    int64_t pairs_per_pass = 0;     // Of its training documents; above 0.
    int64_t sequence_length = 0;    // Pairs of a window.
    std::vector<bool> is_held_out;  // Said of every document.
  };
  // `corpus` outlives the object. Throws bad_input for more windows than can be put in order.
  TrainingStream(const Corpus& corpus, Options options);

  // Fills the row with the `index`-th window in the order of training.
  // REQUIRES: (index + 1) * sequence_length + pairs_per_pass is an int64.
  void fill(int64_t index, const Row& row) const;

 private:
  struct Pass {
    PairSequence pairs;
    // Of the windows that begin in this pass, counted from its first: the order of training.
    std::vector<uint32_t> window_order;
  };
  void fill_pairs(int64_t first_pair, const Row& row) const;
  std::shared_ptr<const Pass> pass(int64_t number) const;
  std::shared_ptr<const Pass> make_pass(int64_t number) const;

  const Corpus& corpus_;
  const Options options_;
  mutable std::mutex mutex_;
  // Last used first.
  mutable std::vector<std::pair<int64_t, std::shared_ptr<const Pass>>> passes_;
};

}  // namespace data
