// Puts the three rules together: which dataset (Mixture), which pairs of it (TrainingStream), and
// which documents nobody trains on (Split).
#include "data/sampler.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <optional>

#include "base/math.h"
#include "data/mixture.h"
#include "data/number_hash.h"
#include "data/pair_sequence.h"
#include "data/random_choice.h"
#include "data/token_format.h"
#include "data/training_stream.h"

namespace data {
namespace {

constexpr int64_t kSequenceLengthMax = int64_t{1} << 24;

void check_option(const char* name, int64_t value, int64_t maximum) {
  if (value >= 1 && value <= maximum) return;
  throw base::bad_input(
      fmt::format("sampler: {}: expected an integer from 1 to {}, found {}", name, maximum, value));
}

void check_options(const SamplerOptions& options, size_t dataset_count) {
  check_option("sequence length", options.sequence_length, kSequenceLengthMax);
  check_option("vocabulary", options.vocabulary, kVocabularyMax);
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    throw base::bad_input(
        fmt::format("sampler: validation fraction {}: expected at least 0 and less than 1",
                    options.validation_fraction));
  }
  if (dataset_count == 0) throw base::bad_input("sampler: there is no dataset");
  if (!options.weights.empty() && options.weights.size() != dataset_count) {
    throw base::bad_input(
        fmt::format("sampler: {} weights for {} datasets", options.weights.size(), dataset_count));
  }
}

void check_dataset(const TokenDataset& dataset, int64_t vocabulary) {
  if (dataset.vocabulary() > vocabulary) {
    throw base::bad_input(
        fmt::format("dataset {}: made with a vocabulary of {} ({}), but the model has {}",
                    dataset.prefix(), dataset.vocabulary(), dataset.tokenizer_name(), vocabulary),
        "prepare the data with the model's tokenizer, or enlarge the model's vocabulary");
  }
  if (dataset.document_count() > int64_t{std::numeric_limits<uint32_t>::max()}) {
    throw base::bad_input(
        fmt::format("dataset {}: {} documents are more than one dataset can have here",
                    dataset.prefix(), dataset.document_count()),
        "cut it into several datasets");
  }
}

// A wrong id deep in the data would otherwise end a run after hours.
void check_ids(const TokenDataset& dataset, const DatasetContent& content, int64_t vocabulary) {
  const auto fail = [&](const TokenPlace& wrong) {
    return base::bad_input(
        fmt::format("dataset {}: document {} has token id {} at position {}, but the model's "
                    "vocabulary has {}; the ids go from {} to {}",
                    dataset.prefix(), wrong.document, wrong.id, wrong.position, vocabulary,
                    content.smallest.id, content.largest.id),
        "was the data made with another tokenizer, or is model.vocabulary too small?");
  };
  if (content.smallest.id < 0) throw fail(content.smallest);
  if (content.largest.id >= vocabulary) throw fail(content.largest);
}

}  // namespace

struct Sampler::State {
  SamplerOptions options;
  Corpus corpus;
  Split split;
  std::vector<DatasetContent> contents;  // Nothing for one without weight.
  int64_t pair_count = 0;                // To train on, in one pass over every dataset.
  std::optional<Mixture> mixture;
  std::vector<std::unique_ptr<TrainingStream>>
      streams;  // One per dataset; none for one without weight.
  std::unique_ptr<PairSequence> validation;

  void split_documents();
  void check_duplicates() const;
  void check_row(const Row& row) const {
    const size_t expected = size_t(options.sequence_length);
    CHECK(row.tokens.size() == expected && row.targets.size() == expected &&
              row.document_starts.size() == expected,
          "a row of {} tokens", row.tokens.size());
  }
};

// One reading of all documents: counts the training pairs and collects what is held out.
void Sampler::State::split_documents() {
  std::vector<DocumentRef> held_out;
  std::vector<double> pair_counts;
  for (size_t d = 0; d < corpus.datasets.size(); ++d) {
    const TokenDataset& dataset = *corpus.datasets[d];
    check_dataset(dataset, options.vocabulary);
    streams.emplace_back();
    contents.emplace_back();
    pair_counts.push_back(0);
    if (!options.weights.empty() && options.weights[d] == 0) continue;
    int64_t pairs = 0;
    std::vector<bool> is_held_out(size_t(dataset.document_count()));
    contents[d] = read_content(dataset, [&](int64_t document, DocumentName name) {
      const int64_t length = dataset.document_length(document);
      if (length < kDocumentTokensMin) return;
      is_held_out[size_t(document)] = split.is_held_out(name);
      if (is_held_out[size_t(document)]) {
        held_out.push_back({.dataset = uint32_t(d), .document = uint32_t(document)});
      } else {
        pairs += length - 1;
      }
    });
    check_ids(dataset, contents[d], options.vocabulary);
    if (pairs == 0) {
      throw base::bad_input(fmt::format(
          "dataset {}: no document of at least two tokens is left to train on", dataset.prefix()));
    }
    pair_counts.back() = double(pairs);
    pair_count += pairs;
    streams.back() = std::make_unique<TrainingStream>(
        corpus, TrainingStream::Options{.seed = options.seed,
                                        .dataset = uint32_t(d),
                                        .pairs_per_pass = pairs,
                                        .sequence_length = options.sequence_length,
                                        .is_held_out = std::move(is_held_out)});
  }
  check_duplicates();
  mixture.emplace(options.weights.empty() ? pair_counts : options.weights, options.seed);
  shuffle(held_out, base::Random(random_key(options.seed, Purpose::kValidationOrder)));
  validation = std::make_unique<PairSequence>(corpus, std::move(held_out));
}

// What is there twice would be seen twice as often as its weight says.
void Sampler::State::check_duplicates() const {
  for (size_t d = 0; d < contents.size(); ++d) {
    for (size_t other = 0; streams[d] && other < d; ++other) {
      if (!streams[other] || contents[other].digest != contents[d].digest) continue;
      throw base::bad_input(
          fmt::format("datasets {} and {} hold the same documents",
                      corpus.datasets[other]->prefix(), corpus.datasets[d]->prefix()),
          "name one of them only, with the weight of both");
    }
  }
}

Sampler::Sampler(std::vector<const TokenDataset*> datasets, const SamplerOptions& options)
    : state_(std::make_unique<State>()) {
  check_options(options, datasets.size());
  state_->options = options;
  state_->corpus = {.datasets = std::move(datasets), .vocabulary = options.vocabulary};
  state_->split = {.seed = options.seed, .validation_fraction = options.validation_fraction};
  state_->split_documents();
  if (options.validation_fraction > 0 && state_->validation->pair_count() == 0) {
    throw base::bad_input(fmt::format("sampler: a validation fraction of {} holds out no document",
                                      options.validation_fraction),
                          "use a larger fraction, more documents (of one long text atoll prepare "
                          "makes several with --separator or --document-bytes), or 0 for no "
                          "validation");
  }
}

Sampler::~Sampler() = default;

void Sampler::training_row(int64_t sample, const Row& out) const {
  state_->check_row(out);
  if (sample < 0 || sample >= sample_limit())
    throw base::bad_input(fmt::format("sampler: there is no sample {}", sample));
  const Mixture::Draw draw = state_->mixture->draw(sample);
  state_->streams[size_t(draw.dataset)]->fill(draw.index, out);
}

// Below it neither the first pair of a sample nor the last one of its pass can overflow.
int64_t Sampler::sample_limit() const {
  return (std::numeric_limits<int64_t>::max() - state_->pair_count) / sequence_length() - 2;
}

int64_t Sampler::sequence_length() const {
  return state_->options.sequence_length;
}

int64_t Sampler::validation_row_count() const {
  return base::div_ceil(state_->validation->pair_count(), state_->options.sequence_length);
}

void Sampler::validation_row(int64_t row, const Row& out) const {
  state_->check_row(out);
  CHECK(row >= 0 && row < validation_row_count(), "validation row {} of {}", row,
        validation_row_count());
  const auto end = size_t(state_->validation->fill(row * state_->options.sequence_length, 0, out));
  const auto pad = [&](std::span<int32_t> values, int32_t value) {
    std::fill(values.begin() + int64_t(end), values.end(), value);
  };
  pad(out.tokens, 0);
  pad(out.targets, -1);
  pad(out.document_starts, int32_t(end));
}

double Sampler::samples_per_pass() const {
  return double(state_->pair_count) / double(sequence_length());
}

const DatasetContent& Sampler::content(size_t dataset) const {
  return state_->contents.at(dataset);
}

base::Digest Sampler::fingerprint() const {
  const SamplerOptions& options = state_->options;
  NumberHash hash;
  hash.add(3);  // The version of the rule.
  hash.add(options.seed);
  hash.add(uint64_t(options.sequence_length));
  hash.add(std::bit_cast<uint64_t>(options.validation_fraction));
  hash.add(state_->corpus.datasets.size());
  for (const int64_t slots : state_->mixture->slots()) hash.add(uint64_t(slots));
  for (const DatasetContent& content : state_->contents) {
    for (const uint8_t byte : content.digest.bytes) hash.add(byte);
  }
  return hash.finish();
}

}  // namespace data
