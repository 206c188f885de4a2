// An evaluation by all ranks: one that is stopped ends after the micro-batch at hand, for all of
// them.
#include "data/fixture.h"
#include "support/catch.h"
#include "support/deferred_backend.h"
#include "train/ranks_fixture.h"

using namespace ranks_test;
using train_test::NodeRig;

namespace {

data_test::MemoryDataset make_dataset() {
  base::Random random(5);
  data_test::MemoryDataset::Documents documents(400);
  for (auto& document : documents)
    for (int i = 0; i < 60; ++i) document.push_back(int32_t(random.below(29)));
  return data_test::MemoryDataset(std::move(documents), 29);
}

}  // namespace

TEST_CASE("validation: a stop ends it after the micro-batch at hand") {
  const auto dataset = make_dataset();
  const auto config = run_config(3, "full", /*micro_batch_rows=*/2);
  const data::Sampler sampler(
      {&dataset}, {.seed = 1, .sequence_length = 12, .validation_fraction = 0.3, .vocabulary = 29});
  const int64_t rows = sampler.validation_row_count();
  NodeRig rig(config);
  int64_t turns = 0;
  const auto whole = rig.ranks.validate(sampler, rows, [&] {
    ++turns;
    return false;
  });
  REQUIRE(turns >= 5);
  REQUIRE(whole->tokens > 0);

  int64_t asked = 0;
  const auto part = rig.ranks.validate(sampler, rows, [&] { return ++asked == 3; });
  REQUIRE_FALSE(part);
  REQUIRE(asked == 3);
  // Nothing is left over of it: the ranks meet again as if it had not been.
  const auto again = rig.ranks.validate(sampler, rows, [] { return false; });
  REQUIRE(again->loss == whole->loss);
  REQUIRE(again->tokens == whole->tokens);
}
