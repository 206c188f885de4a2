// Method: the rule that decides which tokens come is written a second time, in Python and from the
// documentation alone (window_rule.py beside this file). Both must give the same rows: a change of
// the rule would make every node read other data after an update, so it must never happen
// unnoticed.
//
// Made by: python3 tests/data/window_rule.py (Python 3.11)
#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

MemoryDataset make_dataset(int32_t number) {
  MemoryDataset::Documents documents(40);
  for (int32_t i = 0; i < 40; ++i) {
    for (int32_t j = 0; j < (i * 7 + number * 3) % 11; ++j) {
      documents[size_t(i)].push_back((number * 2000 + i * 31 + j * 5) % 4096);
    }
  }
  return MemoryDataset(std::move(documents));
}

// FNV-1a over the numbers' little endian bytes.
class RowHash {
 public:
  void add(const OwnedRow& row) {
    for (const auto* part : {&row.tokens, &row.targets, &row.document_starts}) {
      for (const int32_t number : *part) {
        for (int shift = 0; shift < 32; shift += 8) {
          value = (value ^ (uint32_t(number) >> shift & 0xff)) * 0x100000001B3;
        }
      }
    }
  }
  uint64_t value = 0xCBF29CE484222325;
};

}  // namespace

TEST_CASE("sampler: the rule is the one that is written down") {
  const MemoryDataset first = make_dataset(0), second = make_dataset(1);
  const data::Sampler sampler({&first, &second}, {.seed = (uint64_t{1} << 63) + 42,
                                                  .sequence_length = 8,
                                                  .validation_fraction = 0.2,
                                                  .weights = {3, 1},
                                                  .vocabulary = 4096});
  const OwnedRow row = training_row(sampler, 17);
  REQUIRE(row.tokens == std::vector<int32_t>{2743, 2748, 2753, 3147, 3152, 3157, 3162, 3167});
  REQUIRE(row.targets == std::vector<int32_t>{2748, 2753, 2758, 3152, 3157, 3162, 3167, 3172});
  REQUIRE(row.document_starts == std::vector<int32_t>{0, 0, 0, 3, 3, 3, 3, 3});

  RowHash training;
  for (int64_t sample = 0; sample < 180; ++sample) training.add(training_row(sampler, sample));
  for (int64_t sample = 1200; sample < 1203; ++sample) training.add(training_row(sampler, sample));
  REQUIRE(training.value == 0xd76aa91d4be11ec0);

  REQUIRE(sampler.validation_row_count() == 11);
  RowHash validation;
  for (int64_t number = 0; number < 11; ++number) validation.add(validation_row(sampler, number));
  REQUIRE(validation.value == 0x0dbb1e30592bd2de);
}
