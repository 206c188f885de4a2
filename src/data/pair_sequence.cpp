// Finding a pair is a binary search; copying is two reads per document.
#include "data/pair_sequence.h"

#include <algorithm>

namespace data {
namespace {

Row slice(const Row& row, int64_t begin, int64_t count) {
  const auto cut = [&](std::span<int32_t> whole) {
    return whole.subspan(size_t(begin), size_t(count));
  };
  return {.tokens = cut(row.tokens),
          .targets = cut(row.targets),
          .document_starts = cut(row.document_starts)};
}

}  // namespace

PairSequence::PairSequence(const Corpus& corpus, std::vector<DocumentRef> documents)
    : corpus_(corpus), documents_(std::move(documents)) {
  starts_.reserve(documents_.size() + 1);
  starts_.push_back(0);
  for (const DocumentRef& from : documents_) {
    starts_.push_back(starts_.back() +
                      corpus.datasets[from.dataset]->document_length(from.document) - 1);
  }
}

int64_t PairSequence::fill(int64_t first_pair, int64_t position, const Row& row) const {
  CHECK(first_pair >= 0 && first_pair < pair_count(), "pair {} of {}", first_pair, pair_count());
  const int64_t row_end = int64_t(row.tokens.size());
  size_t i =
      size_t(std::upper_bound(starts_.begin(), starts_.end(), first_pair) - starts_.begin()) - 1;
  for (; position < row_end && i < documents_.size(); ++i) {
    const int64_t count = std::min(starts_[i + 1] - first_pair, row_end - position);
    const Row part = slice(row, position, count);
    copy(documents_[i], first_pair - starts_[i], part);
    std::fill(part.document_starts.begin(), part.document_starts.end(), int32_t(position));
    first_pair += count;
    position += count;
  }
  return position;
}

// Every token but the first of the part is a target, so reading the targets checks them all but
// one.
void PairSequence::copy(const DocumentRef& from, int64_t first_pair, const Row& part) const {
  const TokenDataset& dataset = *corpus_.datasets[from.dataset];
  dataset.read(from.document, first_pair, part.tokens.first(1));
  dataset.read(from.document, first_pair + 1, part.targets);
  std::copy(part.targets.begin(), part.targets.end() - 1, part.tokens.begin() + 1);

  const auto check = [&](int32_t id, int64_t position) {
    if (id >= 0 && id < corpus_.vocabulary) return;
    throw base::bad_input(
        fmt::format(
            "dataset {}: document {} has token id {} at position {}, but the vocabulary has {}",
            dataset.prefix(), from.document, id, position, corpus_.vocabulary),
        "was the data made with another tokenizer?");
  };
  check(part.tokens[0], first_pair);
  for (size_t i = 0; i < part.targets.size(); ++i)
    check(part.targets[i], first_pair + 1 + int64_t(i));
}

}  // namespace data
