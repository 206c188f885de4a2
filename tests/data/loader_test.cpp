// Method: the rows of a loader are compared with those that the sampler gives for the same numbers.
#include "data/loader.h"

#include "data/fixture.h"
#undef CHECK
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
  return {.seed = 3,
          .sequence_length = kLength,
          .parts = 4,
          .validation_fraction = 0,
          .vocabulary = 500};
}

bool same(const data::Batch& a, const data::Batch& b) {
  return a.step == b.step && a.tokens == b.tokens && a.targets == b.targets &&
         a.document_starts == b.document_starts && a.target_count == b.target_count;
}

class Data {
 public:
  MemoryDataset dataset{make_documents()};
  data::Sampler sampler{{&dataset}, make_options()};
};

}  // namespace

TEST_CASE("loader: the ranks together read the part's rows in order") {
  const Data data;
  constexpr int64_t kRanks = 3, kRows = 2;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    data::Loader loader(
        data.sampler,
        {.part = 1, .rank = rank, .ranks = kRanks, .rows_per_rank = kRows, .prefetch = 3}, 5);
    for (int64_t step = 5; step < 15; ++step) {
      const data::Batch batch = loader.next();
      REQUIRE(batch.step == step);
      REQUIRE(batch.target_count == kRows * kLength);
      data::Batch expected{.step = step, .target_count = kRows * kLength};
      for (int64_t i = 0; i < kRows; ++i) {
        const OwnedRow row =
            training_row(data.sampler, 1, step * kRanks * kRows + rank * kRows + i);
        expected.tokens.insert(expected.tokens.end(), row.tokens.begin(), row.tokens.end());
        expected.targets.insert(expected.targets.end(), row.targets.begin(), row.targets.end());
        expected.document_starts.insert(expected.document_starts.end(), row.document_starts.begin(),
                                        row.document_starts.end());
      }
      REQUIRE(same(batch, expected));
    }
  }
}

TEST_CASE("loader: ranks that share a step give what one rank with all rows gives") {
  const Data data;
  data::Loader whole(data.sampler, {.part = 2, .rows_per_rank = 4}, 0);
  data::Loader left(data.sampler, {.part = 2, .rank = 0, .ranks = 2, .rows_per_rank = 2}, 0);
  data::Loader right(data.sampler, {.part = 2, .rank = 1, .ranks = 2, .rows_per_rank = 2}, 0);
  for (int step = 0; step < 20; ++step) {
    auto joined = left.next().tokens;
    const auto more = right.next().tokens;
    joined.insert(joined.end(), more.begin(), more.end());
    REQUIRE(joined == whole.next().tokens);
  }
}

TEST_CASE("loader: going on from a step is the same as coming to it") {
  const Data data;
  const data::LoaderOptions options{.part = 0, .rows_per_rank = 2};
  data::Loader from_start(data.sampler, options, 0);
  std::vector<data::Batch> batches;
  for (int step = 0; step < 20; ++step) batches.push_back(from_start.next());
  data::Loader resumed(data.sampler, options, 11);
  for (size_t step = 11; step < 20; ++step) REQUIRE(same(resumed.next(), batches[step]));
  for (const size_t step : {size_t{3}, size_t{3}, size_t{18}, size_t{0}}) {
    resumed.seek(int64_t(step));
    REQUIRE(same(resumed.next(), batches[step]));
    REQUIRE(same(resumed.next(), batches[step + 1]));
  }
}

TEST_CASE("loader: stops at any time, without a batch taken") {
  const Data data;
  for (int64_t prefetch : {1, 5}) data::Loader(data.sampler, {.prefetch = prefetch}, 0);
}

TEST_CASE("loader: an error of the thread is thrown by next, after the good batches") {
  MemoryDataset spoilt(make_documents());
  const data::Sampler sampler({&spoilt}, make_options());
  spoilt.spoil(30, 1, 500);
  int64_t bad_step = 0;
  const int64_t end = sampler.training_window_count();  // Of one part, so four passes.
  while (bad_step < end && !is_bad_input([&] { training_row(sampler, 0, bad_step); })) ++bad_step;
  REQUIRE(bad_step > 0);
  REQUIRE(bad_step < end);

  data::Loader loader(sampler, {.part = 0, .prefetch = 4}, 0);
  for (int64_t step = 0; step < bad_step; ++step) REQUIRE(loader.next().step == step);
  for (int again = 0; again < 2; ++again) {
    const base::Error error = error_of([&] { loader.next(); });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), "document 30 "));
  }
  loader.seek(0);
  REQUIRE(loader.next().step == 0);
}

TEST_CASE("loader: a part or step that cannot be is bad input") {
  const Data data;
  REQUIRE(is_bad_input([&] { data::Loader(data.sampler, {.part = 4}, 0).next(); }));
  for (const int64_t step : {int64_t{-1}, INT64_MAX, INT64_MAX / 2}) {
    REQUIRE(is_bad_input([&] { data::Loader(data.sampler, {.rows_per_rank = 3}, step).next(); }));
  }
}
