// Passes are made when they are first asked for, which takes about as long as a scan over the
// index.
#include "data/training_stream.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/math.h"
#include "data/random_choice.h"

namespace data {
namespace {
constexpr size_t kCachedPasses = 2;

// Of the windows that begin in a pass. The last window of the pass before may reach into it, or
// even over it.
size_t window_count(int64_t pass, const TrainingStream::Options& options) {
  const int64_t length = options.sequence_length;
  const int64_t behind = pass * options.pairs_per_pass % length;
  const int64_t lead = behind == 0 ? 0 : length - behind;
  if (lead >= options.pairs_per_pass) return 0;
  return size_t(base::div_ceil(options.pairs_per_pass - lead, length));
}
}  // namespace

bool Split::is_held_out(DocumentName name) const {
  base::Random random(random_key(seed, Purpose::kHoldOut), name);
  return random.uniform() < validation_fraction;
}

TrainingStream::TrainingStream(const Corpus& corpus, Options options)
    : corpus_(corpus), options_(std::move(options)) {
  const int64_t windows = base::div_ceil(options_.pairs_per_pass, options_.sequence_length);
  if (windows <= int64_t{std::numeric_limits<uint32_t>::max()}) return;
  throw base::bad_input(
      fmt::format("dataset {}: {} windows of {} tokens are more than one dataset "
                  "can have here",
                  corpus.datasets[options_.dataset]->prefix(), windows, options_.sequence_length),
      "cut it into several datasets");
}

void TrainingStream::fill(int64_t index, const Row& row) const {
  const int64_t first_pair = index * options_.sequence_length;
  const std::shared_ptr<const Pass> in = pass(first_pair / options_.pairs_per_pass);
  const int64_t place = first_pair % options_.pairs_per_pass / options_.sequence_length;
  const int64_t window = in->window_order.at(size_t(place));
  fill_pairs(first_pair + (window - place) * options_.sequence_length, row);
}

void TrainingStream::fill_pairs(int64_t first_pair, const Row& row) const {
  const int64_t per_pass = options_.pairs_per_pass;
  for (int64_t position = 0; position < int64_t(row.tokens.size());) {
    const int64_t pair = first_pair + position;
    position = pass(pair / per_pass)->pairs.fill(pair % per_pass, position, row);
  }
}

// Whoever needs a pass that is being made waits for it under the lock.
std::shared_ptr<const TrainingStream::Pass> TrainingStream::pass(int64_t number) const {
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

std::shared_ptr<const TrainingStream::Pass> TrainingStream::make_pass(int64_t number) const {
  const TokenDataset& dataset = *corpus_.datasets[options_.dataset];
  std::vector<DocumentRef> documents;
  for (int64_t document = 0; document < dataset.document_count(); ++document) {
    if (dataset.document_length(document) < kDocumentTokensMin) continue;
    if (options_.is_held_out[size_t(document)]) continue;
    documents.push_back({.dataset = options_.dataset, .document = uint32_t(document)});
  }
  const auto random = [&](Purpose purpose) {
    return base::Random(random_key(options_.seed, purpose, options_.dataset), uint64_t(number));
  };
  shuffle(documents, random(Purpose::kPassOrder));
  std::vector<uint32_t> window_order(window_count(number, options_));
  std::iota(window_order.begin(), window_order.end(), uint32_t{0});
  shuffle(window_order, random(Purpose::kWindowOrder));
  auto made = std::make_shared<Pass>(
      Pass{PairSequence(corpus_, std::move(documents)), std::move(window_order)});
  CHECK(made->pairs.pair_count() == options_.pairs_per_pass, "{} pairs, expected {}",
        made->pairs.pair_count(), options_.pairs_per_pass);
  return made;
}

}  // namespace data
