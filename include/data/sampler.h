// The training data of a run is one endless stream of samples, 0, 1, 2, ...: rows of T pairs. What
// a sample holds is a pure function of the seed and its number, so that a position is one number
// and is found without replaying. A run walks through the stream: who trains on which samples is
// decided elsewhere.
//
// Per dataset, the training documents are put in a random order (one per pass over the data) and
// laid end to end. A document of n tokens gives n-1 pairs (input, target), so its end token is only
// ever a target and nothing is predicted across a border; pass follows pass, and windows of T pairs
// tile this endless stream without gap: a document's tail goes on in the next window, a pass's tail
// in the first window of the next pass. The windows that begin in a pass come in a random order, so
// that a batch holds many documents even where a single one fills a thousand windows.
//
// Mixing: samples are drawn from the datasets in blocks of 1024; inside a block each dataset has a
// share of slots in proportion to its weight (largest remainder, at least one), in a random order
// per block. The k-th sample of a dataset is the k-th window in the order of its stream.
//
// Held out for validation: the documents whose random number (of the seed and the document's
// content) lies below `validation_fraction`. So equal documents are on one side, in whatever
// datasets they are and wherever those stand in the list.
//
// Memory: 16 bytes per training document and 4 per window for each cached pass (at most two per
// dataset), 16 per held-out document, one bit per document. docs/formats/token-dataset.md has the
// whole rule.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/dataset_content.h"
#include "data/token_dataset.h"

namespace data {

struct SamplerOptions {
  uint64_t seed = 0;
  int64_t sequence_length = 0;  // T
  double validation_fraction = 0.01;
  std::vector<double> weights;  // One per dataset, relative, 0: not used at all; empty: by what
                                // there is to train on.
  int64_t vocabulary = 0;       // Tokens outside [0, vocabulary) are bad input.
};

// One row: T entries each. document_starts: for each position the position at which its document
// begins in this row.
struct Row {
  std::span<int32_t> tokens, targets, document_starts;
};

// Thread safe.
class Sampler {
 public:
  // `datasets` outlive the object and are read once in full, but for those of weight 0. Throws
  // bad_input when a dataset has no pair to train on, when nothing is held out although
  // validation_fraction > 0, when two datasets hold the same, or when a dataset's vocabulary or any
  // token id does not fit. Data for less than a window is repeated within it.
  Sampler(std::vector<const TokenDataset*> datasets, const SamplerOptions& options);
  ~Sampler();

  int64_t sequence_length() const;  // T

  // Throws bad_input for a number outside [0, sample_limit()), and for data with token ids outside
  // the vocabulary.
  void training_row(int64_t sample, const Row& out) const;
  int64_t sample_limit() const;  // Far more than can be trained on.

  // The same rows for everybody, at most validation_row_count() of them: the held-out documents of
  // all datasets in one random order, so that the first few rows already speak for all. The last
  // may be padded: token 0, target -1, a document of its own.
  int64_t validation_row_count() const;
  void validation_row(int64_t row, const Row& out) const;

  const DatasetContent& content(size_t dataset) const;  // Empty for one of weight 0.
  // One pass over all datasets' training pairs has so many samples. With weights some datasets are
  // repeated sooner and others later.
  double samples_per_pass() const;
  // Names everything that decides which tokens come: a resumed run must find the same. Of the
  // datasets it takes what is in them, not where they lie.
  base::Digest fingerprint() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace data
