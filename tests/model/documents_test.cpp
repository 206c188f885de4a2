// What the host counts of a micro-batch's documents.
#include <vector>

#include "model/pass.h"
#include "support/catch.h"

namespace {

model::Documents count(const std::vector<int32_t>& starts, int64_t sequence_length) {
  return model::documents_of(starts, sequence_length);
}

}  // namespace

TEST_CASE("documents of a micro-batch: how many, and the longest") {
  const auto require = [](const model::Documents& found, int64_t count, int64_t longest) {
    REQUIRE(found.count == count);
    REQUIRE(found.longest == longest);
  };
  require(count({0, 0, 0, 0}, 4), 1, 4);
  require(count({0, 0, 0, 0}, 2), 2, 2);  // A document ends with its row.
  require(count({0, 1, 2, 3}, 4), 4, 1);
  require(count({0, 0, 2, 2, 2, 0, 1, 1, 3, 3}, 5), 5, 3);
  require(count({0, 0, 0, 3, 0, 1, 2, 3}, 4), 6, 3);
}
