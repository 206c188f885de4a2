// Method: the rows of a loader are compared with those that the sampler gives for the same samples.
#include "data/loader.h"

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

constexpr int64_t kLength = 8;

MemoryDataset::Documents make_documents() {
  base::Random random(21);
  MemoryDataset::Documents documents(60);
  for (auto& document : documents) {
    document.resize(2 + random.below(40));
    for (int32_t& id : document) id = int32_t(random.below(500));
  }
  return documents;
}

data::SamplerOptions make_options() {
  return {.seed = 3, .sequence_length = kLength, .validation_fraction = 0, .vocabulary = 500};
}

class Data {
 public:
  MemoryDataset dataset{make_documents()};
  data::Sampler sampler{{&dataset}, make_options()};
};

void require_rows(const data::Batch& batch, const data::Sampler& sampler,
                  const std::vector<int64_t>& samples) {
  data::Batch expected;
  for (const int64_t sample : samples) {
    const OwnedRow row = training_row(sampler, sample);
    expected.tokens.insert(expected.tokens.end(), row.tokens.begin(), row.tokens.end());
    expected.targets.insert(expected.targets.end(), row.targets.begin(), row.targets.end());
    expected.document_starts.insert(expected.document_starts.end(), row.document_starts.begin(),
                                    row.document_starts.end());
  }
  REQUIRE(batch.tokens == expected.tokens);
  REQUIRE(batch.targets == expected.targets);
  REQUIRE(batch.document_starts == expected.document_starts);
  REQUIRE(batch.target_count == int64_t(samples.size()) * kLength);
}

}  // namespace

TEST_CASE("loader: batches are the samples in order, across ranges and only when they are full") {
  const Data data;
  data::Loader loader(data.sampler, {.rows = 4, .prefetch = 3});
  REQUIRE(!loader.has_batch());
  loader.add({10, 6});
  loader.add({100, 1});
  loader.add({50, 4});
  REQUIRE(loader.left().count() == 11);
  require_rows(loader.next(), data.sampler, {10, 11, 12, 13});
  require_rows(loader.next(), data.sampler, {14, 15, 100, 50});
  REQUIRE(!loader.has_batch());
  REQUIRE(loader.left().list() == std::vector<data::SampleRange>{{51, 3}});
  loader.add({54, 5});
  require_rows(loader.next(), data.sampler, {51, 52, 53, 54});
  REQUIRE(loader.left().list() == std::vector<data::SampleRange>{{55, 4}});
}

TEST_CASE("loader: another one goes on with what is left, whatever was made ahead") {
  const Data data;
  const int64_t rows = GENERATE(3, 7);  // The batch may change: no position moves.
  data::Loader first(data.sampler, {.rows = 3});
  first.add({20, 7});
  first.add({70, 1000});
  for (int step = 0; step < 4; ++step) first.next();
  data::Loader second(data.sampler, {.rows = rows});
  for (const data::SampleRange& range : first.left().list()) second.add(range);
  std::vector<int64_t> expected;
  for (int64_t i = 0; i < rows; ++i) expected.push_back(75 + i);
  require_rows(second.next(), data.sampler, expected);
}

TEST_CASE("loader: stops at any time, with and without samples, without a batch taken") {
  const Data data;
  for (const int64_t prefetch : {1, 5}) {
    data::Loader(data.sampler, {.prefetch = prefetch});
    data::Loader busy(data.sampler, {.prefetch = prefetch});
    busy.add({0, busy.left().count() + data.sampler.sample_limit()});
  }
}

TEST_CASE("loader: an error of the thread is thrown by next, after the good batches") {
  MemoryDataset spoilt(make_documents());
  const data::Sampler sampler({&spoilt}, make_options());
  spoilt.spoil(30, 1, 500);
  int64_t bad = 0;
  const auto end = int64_t(sampler.samples_per_pass()) + 1;
  while (bad < end && !is_bad_input([&] { training_row(sampler, bad); })) ++bad;
  REQUIRE(bad > 0);
  REQUIRE(bad < end);

  data::Loader loader(sampler, {.prefetch = 4});
  loader.add({0, end});
  for (int64_t sample = 0; sample < bad; ++sample) loader.next();
  for (int again = 0; again < 2; ++again) {
    const base::Error error = error_of([&] { loader.next(); });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), "document 30 "));
    REQUIRE(loader.left().list().front().first == bad);
  }
}

TEST_CASE("loader: samples that cannot be are bad input") {
  const Data data;
  data::Loader loader(data.sampler, {});
  const int64_t limit = data.sampler.sample_limit();
  for (const data::SampleRange& range : std::vector<data::SampleRange>{
           {-1, 5}, {0, 0}, {3, -2}, {0, limit + 1}, {limit, 1}, {5, INT64_MAX}}) {
    REQUIRE(is_bad_input([&] { loader.add(range); }));
  }
  REQUIRE(loader.left().count() == 0);
}

TEST_CASE("sample ranges: they join where they meet, and are taken from the front") {
  using List = std::vector<data::SampleRange>;
  data::SampleRanges ranges;
  ranges.add({5, 5});
  ranges.add({10, 2});
  ranges.add({3, 2});
  REQUIRE(ranges.list() == List{{5, 7}, {3, 2}});
  REQUIRE(ranges.take(0).empty());
  REQUIRE(ranges.take(8) == List{{5, 7}, {3, 1}});
  REQUIRE(ranges.list() == List{{4, 1}});
  REQUIRE(ranges.take(1) == List{{4, 1}});
  REQUIRE(ranges.count() == 0);
  REQUIRE(ranges.list().empty());
}

TEST_CASE("sample ranges: those below a number are dropped") {
  using List = std::vector<data::SampleRange>;
  data::SampleRanges ranges;
  for (const data::SampleRange& range : List{{100, 10}, {5, 5}, {47, 6}}) ranges.add(range);
  ranges.drop_below(0);
  REQUIRE(ranges.count() == 21);
  ranges.drop_below(50);
  REQUIRE(ranges.list() == List{{100, 10}, {50, 3}});
  REQUIRE(ranges.count() == 13);
  ranges.drop_below(INT64_MAX);
  REQUIRE(ranges.list().empty());
  REQUIRE(ranges.count() == 0);
}
