// Method: in the test data every token says where it comes from (document * 1000 + position), so
// that from the rows alone one can tell which pairs were delivered, how often and in which order;
// the sampler's properties are then counted out.
#include "data/sampler.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

constexpr int64_t kVocabulary = 1000 * 1000;

MemoryDataset make_dataset(int64_t documents, uint64_t seed, int64_t first_document = 0) {
  base::Random random(seed, 77);
  MemoryDataset::Documents contents;
  for (int64_t i = 0; i < documents; ++i) {
    contents.emplace_back(random.below(60));
    for (size_t j = 0; j < contents.back().size(); ++j) {
      contents.back()[j] = int32_t((first_document + i) * 1000 + int64_t(j));
    }
  }
  return MemoryDataset(std::move(contents));
}

data::SamplerOptions make_options(uint64_t seed) {
  return {
      .seed = seed, .sequence_length = 16, .validation_fraction = 0.1, .vocabulary = kVocabulary};
}

using Pair = std::pair<int32_t, int32_t>;

std::vector<Pair> pairs_of(const OwnedRow& row) {
  std::vector<Pair> pairs;
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    if (row.targets[i] >= 0) pairs.emplace_back(row.tokens[i], row.targets[i]);
  }
  return pairs;
}

std::vector<Pair> all_pairs(const data::TokenDataset& dataset) {
  std::vector<Pair> pairs;
  for (int64_t i = 0; i < dataset.document_count(); ++i) {
    std::vector<int32_t> tokens(size_t(dataset.document_length(i)));
    dataset.read(i, 0, tokens);
    for (size_t j = 1; j < tokens.size(); ++j) pairs.emplace_back(tokens[j - 1], tokens[j]);
  }
  return pairs;
}

std::vector<Pair> validation_pairs(const data::Sampler& sampler) {
  std::vector<Pair> pairs;
  for (int64_t row = 0; row < sampler.validation_row_count(); ++row) {
    const auto more = pairs_of(validation_row(sampler, row));
    pairs.insert(pairs.end(), more.begin(), more.end());
  }
  return pairs;
}

// The first `count` pairs, in the order of the samples.
std::vector<Pair> training_pairs(const data::Sampler& sampler, int64_t count) {
  std::vector<Pair> pairs;
  for (int64_t sample = 0; int64_t(pairs.size()) < count; ++sample) {
    const auto more = pairs_of(training_row(sampler, sample));
    pairs.insert(pairs.end(), more.begin(), more.end());
  }
  pairs.resize(size_t(count));
  return pairs;
}

std::set<int32_t> documents_of(const std::vector<Pair>& pairs) {
  std::set<int32_t> documents;
  for (const Pair& pair : pairs) documents.insert(pair.first / 1000);
  return documents;
}

std::vector<Pair> sorted(std::vector<Pair> pairs) {
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

}  // namespace

TEST_CASE("sampler: pass after pass delivers every training pair once") {
  const uint64_t seed = GENERATE(1, 2, 3);
  INFO("seed " << seed);
  const MemoryDataset dataset = make_dataset(200, seed);
  const data::Sampler sampler({&dataset}, make_options(seed));
  const auto validation = validation_pairs(sampler);
  const int64_t per_pass = int64_t(all_pairs(dataset).size() - validation.size());
  REQUIRE(sampler.samples_per_pass() == double(per_pass) / 16);
  REQUIRE(per_pass % 16 != 0);  // Otherwise no window would straddle the border of the passes.

  // How often each pair came. The window over the border brings the first pairs of the next pass.
  std::map<Pair, int64_t> seen;
  int64_t sample = 0;
  for (int64_t pass = 1; pass <= 16; ++pass) {
    for (; sample * 16 < pass * per_pass; ++sample)
      for (const Pair& pair : pairs_of(training_row(sampler, sample))) ++seen[pair];
    REQUIRE(int64_t(seen.size()) == per_pass);
    int64_t more = 0;
    for (const auto& [pair, count] : seen) {
      REQUIRE(count >= pass);
      more += count - pass;
    }
    REQUIRE(more == sample * 16 - pass * per_pass);
    REQUIRE(more < 16);
  }
  for (const Pair& pair : validation) REQUIRE(seen.count(pair) == 0);
}

TEST_CASE("sampler: a document goes on in another window of the pass until its end") {
  const MemoryDataset dataset = make_dataset(200, 4);
  const data::Sampler sampler({&dataset}, make_options(4));
  std::map<int32_t, int32_t> begins, goes_on;  // By the first token; the token behind the last.
  for (int64_t sample = 0; double(sample) < sampler.samples_per_pass(); ++sample) {
    const auto pairs = pairs_of(training_row(sampler, sample));
    ++begins[pairs.front().first];
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto [from, to] = pairs[i];
      REQUIRE(to == from + 1);  // Never across a border of documents.
      const bool at_end = to % 1000 + 1 == dataset.document_length(to / 1000);
      if (i + 1 == pairs.size()) {
        if (!at_end) ++goes_on[to];
      } else if (at_end) {
        REQUIRE(pairs[i + 1].first % 1000 == 0);
      } else {
        REQUIRE(pairs[i + 1].first == to);
      }
    }
  }
  REQUIRE(goes_on.size() > 100);
  int64_t missing = 0;
  for (const auto& [token, count] : goes_on) {
    REQUIRE(count == 1);
    if (begins[token] != 1) ++missing;
  }
  REQUIRE(missing <= 1);  // Of the window over the border.
}

TEST_CASE("sampler: a long document is spread over the pass, each pass in its own way") {
  // One document of 300 windows among short ones, which have 300 as well.
  MemoryDataset::Documents documents(1, std::vector<int32_t>(300 * 16 + 1, 1));
  for (int32_t i = 0; i < 300; ++i) documents.emplace_back(17, 2);
  const MemoryDataset dataset(std::move(documents));
  auto options = make_options(20);
  options.validation_fraction = 0;
  const data::Sampler sampler({&dataset}, options);
  const auto is_long = [&](const data::Sampler& of, int64_t first) {
    std::vector<bool> result;
    for (int64_t i = 0; i < 600; ++i) result.push_back(training_row(of, first + i).tokens[0] == 1);
    return result;
  };
  const auto first_pass = is_long(sampler, 0);
  REQUIRE(std::count(first_pass.begin(), first_pass.end(), true) == 300);
  for (int64_t tenth = 0; tenth < 600; tenth += 60) {
    const auto from = first_pass.begin() + tenth;
    const int64_t here = std::count(from, from + 60, true);
    REQUIRE(here > 15);  // 30 expected; each bound is some four standard deviations away.
    REQUIRE(here < 45);
  }
  REQUIRE(is_long(sampler, 600) != first_pass);
  options.seed = 21;
  REQUIRE(is_long(data::Sampler({&dataset}, options), 0) != first_pass);
}

TEST_CASE("sampler: document starts mark the documents of the row") {
  const MemoryDataset dataset = make_dataset(200, 5);
  const data::Sampler sampler({&dataset}, make_options(5));
  int64_t inside = 0;
  for (int64_t sample = 0; sample < int64_t(2 * sampler.samples_per_pass()); ++sample) {
    const OwnedRow row = training_row(sampler, sample);
    int32_t start = 0;
    for (int32_t i = 0; i < 16; ++i) {
      if (i > 0 && row.tokens[size_t(i)] % 1000 == 0) start = i;
      REQUIRE(row.document_starts[size_t(i)] == start);
    }
    if (row.tokens[0] % 1000 != 0) ++inside;
  }
  REQUIRE(inside > 0);  // Windows that begin inside a document were among them.
}

TEST_CASE("sampler: validation and training share no document") {
  const MemoryDataset first = make_dataset(200, 6), second = make_dataset(100, 7, 200);
  const data::Sampler sampler({&first, &second}, make_options(6));
  const auto held_out = documents_of(validation_pairs(sampler));
  const auto trained = documents_of(training_pairs(sampler, 20000));
  for (const int32_t document : held_out) REQUIRE(trained.count(document) == 0);
  REQUIRE(held_out.size() > 10);
  REQUIRE(held_out.size() < 60);
  REQUIRE(*held_out.begin() < 200);
  REQUIRE(*held_out.rbegin() >= 200);
}

TEST_CASE("sampler: the last validation row is padded") {
  const MemoryDataset dataset = make_dataset(200, 8);
  const data::Sampler sampler({&dataset}, make_options(8));
  const int64_t pairs = int64_t(validation_pairs(sampler).size());
  REQUIRE(pairs % 16 != 0);
  REQUIRE(sampler.validation_row_count() == pairs / 16 + 1);
  const OwnedRow last = validation_row(sampler, pairs / 16);
  for (int64_t i = 0; i < 16; ++i) {
    const bool is_padding = i >= pairs % 16;
    REQUIRE((last.targets[size_t(i)] == -1) == is_padding);
    if (is_padding) REQUIRE(last.tokens[size_t(i)] == 0);
    if (is_padding) REQUIRE(last.document_starts[size_t(i)] == pairs % 16);
  }
}

TEST_CASE("sampler: a row depends on its number alone") {
  const MemoryDataset first = make_dataset(150, 9), second = make_dataset(50, 10, 150);
  const auto options = make_options(9);
  const data::Sampler forward({&first, &second}, options), any_order({&first, &second}, options);
  std::map<int64_t, OwnedRow> rows;
  for (int64_t row = 0; row < 400; ++row) rows.emplace(row, training_row(forward, row));
  base::Random random(9);
  for (int i = 0; i < 800; ++i) {
    const auto row = int64_t(random.below(400));
    INFO("row " << row);
    REQUIRE(training_row(any_order, row) == rows.at(row));
  }
  for (int64_t row = 0; row < forward.validation_row_count(); ++row) {
    REQUIRE(validation_row(forward, row) == validation_row(any_order, row));
  }
}

TEST_CASE("sampler: several threads get the same rows as one") {
  const MemoryDataset dataset = make_dataset(100, 11);
  const data::Sampler shared({&dataset}, make_options(11)), alone({&dataset}, make_options(11));
  std::vector<std::vector<OwnedRow>> results(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      base::Random random(t);
      for (int i = 0; i < 200; ++i)
        results[t].push_back(training_row(shared, int64_t(random.below(300))));
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t t = 0; t < results.size(); ++t) {
    base::Random random(t);
    for (const OwnedRow& row : results[t])
      REQUIRE(row == training_row(alone, int64_t(random.below(300))));
  }
}

TEST_CASE("sampler: data for less than a window is repeated in it") {
  const MemoryDataset tiny({{0, 1, 2, 3}, {1000, 1001}});
  auto options = make_options(12);
  options.validation_fraction = 0;
  const data::Sampler sampler({&tiny}, options);
  REQUIRE(sampler.samples_per_pass() == 0.25);
  std::vector<Pair> pairs = training_pairs(sampler, 3 * 4 * 16);
  for (size_t first = 0; first < pairs.size(); first += 4) {
    REQUIRE(sorted({pairs.begin() + int64_t(first), pairs.begin() + int64_t(first) + 4}) ==
            all_pairs(tiny));
  }
}

TEST_CASE("sampler: in a mixture every dataset keeps its order and its exact share") {
  const MemoryDataset first = make_dataset(100, 13), second = make_dataset(50, 14, 100);
  auto options = make_options(13);
  options.weights = {3, 1};
  const data::Sampler mixed({&first, &second}, options);
  options.weights = {1, 0};
  const data::Sampler only_first({&first, &second}, options);
  int64_t from_first = 0;
  for (int64_t sample = 0; sample < 2 * 1024; ++sample) {
    const OwnedRow row = training_row(mixed, sample);
    if (row.tokens[0] < 100 * 1000) {
      REQUIRE(row == training_row(only_first, from_first));
      ++from_first;
    }
    if (sample + 1 == 1024) REQUIRE(from_first == 768);
  }
  REQUIRE(from_first == 2 * 768);
}

TEST_CASE("sampler: a dataset shorter than a window repeats within it") {
  const MemoryDataset tiny({{0, 1, 2, 3}, {1000, 1001}}), large = make_dataset(100, 15, 2);
  auto options = make_options(15);
  options.validation_fraction = 0;
  options.weights = {1, 1};
  const data::Sampler sampler({&tiny, &large}, options);
  bool found = false;
  for (int64_t row = 0; row < 20; ++row) {
    const OwnedRow got = training_row(sampler, row);
    if (got.tokens[0] >= 2000) continue;
    found = true;
    REQUIRE(std::count(got.tokens.begin(), got.tokens.end(), 0) == 4);
    REQUIRE(std::count(got.tokens.begin(), got.tokens.end(), 1000) == 4);
    for (size_t i = 0; i < 16; ++i) {
      const int32_t in_document = got.tokens[i] % 1000;
      REQUIRE(got.document_starts[i] == int32_t(std::max<int64_t>(0, int64_t(i) - in_document)));
    }
  }
  REQUIRE(found);
  REQUIRE(sampler.validation_row_count() == 0);
}

TEST_CASE("sampler: the fingerprint changes with whatever changes the tokens") {
  const MemoryDataset first = make_dataset(100, 16), second = make_dataset(100, 17),
                      renamed(MemoryDataset::Documents{}, 0, "elsewhere");
  const auto options = make_options(16);
  const auto fingerprint = [&](const data::TokenDataset& dataset,
                               const data::SamplerOptions& chosen) {
    return data::Sampler({&dataset}, chosen).fingerprint();
  };
  std::set<base::Digest> seen = {fingerprint(first, options)};
  REQUIRE(seen.count(fingerprint(make_dataset(100, 16), options)) == 1);
  REQUIRE(seen.insert(fingerprint(second, options)).second);
  MemoryDataset other_end = make_dataset(100, 16);
  other_end.spoil(99, other_end.document_length(99) - 1, 0);
  REQUIRE(seen.insert(fingerprint(other_end, options)).second);
  for (const auto& change : std::vector<void (*)(data::SamplerOptions&)>{
           [](auto& o) { o.seed = 17; }, [](auto& o) { o.sequence_length = 15; },
           [](auto& o) { o.validation_fraction = 0.2; }}) {
    auto changed = options;
    change(changed);
    REQUIRE(seen.insert(fingerprint(first, changed)).second);
  }
  auto weighted = options;
  for (const double weight : {1.0, 2.0}) {
    weighted.weights = {1, weight};
    REQUIRE(seen.insert(data::Sampler({&first, &second}, weighted).fingerprint()).second);
  }
}

TEST_CASE("sampler: equal documents are on one side, in whatever datasets they are") {
  // A dataset, the same one with more behind it and in another order, and documents twice.
  const auto contents = [](int64_t first, int64_t count, int64_t turn) {
    MemoryDataset::Documents documents;
    for (int64_t i = 0; i < count; ++i) {
      const auto number = int32_t(first + (i + turn) % count);
      documents.push_back({number * 1000, number * 1000 + 1, number * 1000 + 2});
    }
    return documents;
  };
  auto twice = contents(50, 200, 0);
  twice.insert(twice.end(), twice.begin(), twice.end());
  const MemoryDataset one(contents(0, 200, 0)), other(contents(0, 300, 77)), doubled(twice);
  const auto options = make_options(21);
  std::set<int32_t> of_three;
  for (const auto& datasets : std::vector<std::vector<const data::TokenDataset*>>{
           {&one, &other, &doubled}, {&doubled, &one, &other}}) {
    const data::Sampler sampler(datasets, options);
    const auto held_out = documents_of(validation_pairs(sampler));
    const auto trained = documents_of(training_pairs(sampler, 20000));
    REQUIRE(held_out.size() > 10);
    REQUIRE(trained.size() + held_out.size() == 300);
    for (const int32_t document : held_out) REQUIRE(trained.count(document) == 0);
    // Neither the order of the list nor what else is in it changes who is held out.
    if (!of_three.empty()) REQUIRE(held_out == of_three);
    of_three = held_out;
  }
  for (const int32_t document : documents_of(validation_pairs(data::Sampler({&one}, options))))
    REQUIRE(of_three.count(document) == 1);
}

TEST_CASE("sampler: a dataset that is named twice is refused, and so is its copy") {
  const MemoryDataset original = make_dataset(100, 22), between = make_dataset(50, 23, 100);
  const MemoryDataset copy = [] {
    MemoryDataset::Documents documents;
    const MemoryDataset same = make_dataset(100, 22);
    for (int64_t i = 0; i < same.document_count(); ++i) {
      documents.emplace_back(size_t(same.document_length(i)));
      same.read(i, 0, documents.back());
    }
    return MemoryDataset(documents, 0, "elsewhere/copy");
  }();
  auto options = make_options(22);
  for (const MemoryDataset* second : {&original, &copy}) {
    const base::Error error = error_of([&] {
      data::Sampler({&original, &between, second}, options);
    });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), "memory and " + second->prefix() + " hold the same documents"));
    REQUIRE(contains(error.hint(), "weight"));
  }
  options.weights = {1, 1, 0};  // What takes no part cannot harm.
  REQUIRE(!is_bad_input([&] { data::Sampler({&original, &between, &copy}, options); }));
}

TEST_CASE("sampler: a token outside the vocabulary is named before anything is trained on") {
  MemoryDataset::Documents documents(20, std::vector<int32_t>(30, 5));
  for (size_t i = 0; i < documents.size(); ++i) documents[i][1] = int32_t(i / 2);
  const int32_t wrong = GENERATE(-1, 10, 1 << 30);
  const size_t position = GENERATE(size_t{0}, size_t{7}, size_t{29});
  const data::SamplerOptions options = {
      .sequence_length = 8, .validation_fraction = 0, .vocabulary = 10};
  const auto check = [&](const base::Error& error) {
    INFO(error.what());
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), "folder/spoilt"));
    REQUIRE(contains(error.what(), "document 13 "));
    REQUIRE(contains(error.what(), fmt::format("token id {} at position {},", wrong, position)));
  };
  MemoryDataset dataset(documents, 10, "folder/spoilt");
  const data::Sampler sampler({&dataset}, options);
  REQUIRE(sampler.content(0).largest.id == 9);
  REQUIRE(sampler.content(0).largest.document == 18);
  dataset.spoil(13, int64_t(position), wrong);
  check(error_of([&] { data::Sampler({&dataset}, options); }));
  // A file that is overwritten while it is in use.
  check(error_of([&] {
    for (int64_t row = 0; row < int64_t(sampler.samples_per_pass()) + 1; ++row)
      training_row(sampler, row);
  }));
}

TEST_CASE("sampler: what cannot work is bad input at once") {
  const MemoryDataset dataset = make_dataset(50, 18);
  std::vector<const data::TokenDataset*> datasets = {&dataset};
  auto options = make_options(18);
  const MemoryDataset other_vocabulary({{1, 2, 3}}, kVocabulary + 1, "foreign");
  const MemoryDataset untrainable({{1}, {}, {2}}, 0, "untrainable");
  std::string expected;
  SECTION("no dataset") {
    datasets.clear(), expected = "no dataset";
  }
  SECTION("no length") {
    options.sequence_length = 0, expected = "sequence length";
  }
  SECTION("no vocabulary") {
    options.vocabulary = 0, expected = "vocabulary";
  }
  SECTION("huge length") {
    options.sequence_length = INT64_MAX, expected = "sequence length";
  }
  SECTION("all held out") {
    options.validation_fraction = 1, expected = "validation fraction 1";
  }
  SECTION("negative fraction") {
    options.validation_fraction = -0.1, expected = "validation fraction";
  }
  SECTION("no fraction") {
    options.validation_fraction = std::numeric_limits<double>::quiet_NaN(),
    expected = "validation fraction";
  }
  SECTION("nothing held out") {
    options.validation_fraction = 1e-9, expected = "holds out no document";
  }
  SECTION("too many weights") {
    options.weights = {1, 1}, expected = "2 weights for 1 datasets";
  }
  SECTION("another vocabulary") {
    datasets.push_back(&other_vocabulary), expected = "foreign";
  }
  SECTION("nothing to train on") {
    datasets.push_back(&untrainable), expected = "untrainable";
  }
  const base::Error error = error_of([&] { data::Sampler(datasets, options); });
  INFO(error.what());
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(!expected.empty());
  REQUIRE(contains(error.what(), expected));
}

TEST_CASE("sampler: a sample that cannot be is bad input, the last one that can be works") {
  const MemoryDataset dataset = make_dataset(50, 19);
  const data::Sampler sampler({&dataset}, make_options(19));
  REQUIRE(sampler.sample_limit() > int64_t{1} << 58);
  for (const int64_t sample : {int64_t{-1}, sampler.sample_limit(), INT64_MAX})
    REQUIRE(is_bad_input([&] { training_row(sampler, sample); }));
  REQUIRE(pairs_of(training_row(sampler, sampler.sample_limit() - 1)).size() == 16);
}
