// Offsets of tensors and units, and the padding, against sums made by hand.
#include "shard/layout.h"

#include "support/catch.h"

namespace {

shard::Layout two_units() {
  shard::Layout layout;
  layout.units = {{.name = "first"}, {.name = "second"}};
  shard::add_tensor(layout.units[0], "a", {3, 5}, {.standard_deviation = 1});
  shard::add_tensor(layout.units[0], "b", {7}, {});
  shard::add_tensor(layout.units[1], "a", {64, 4}, {});
  return layout;
}

}  // namespace

TEST_CASE("tensors of a unit follow each other without gaps", "[layout]") {
  const shard::Layout layout = two_units();
  REQUIRE(layout.units[0].find("a").offset == 0);
  REQUIRE(layout.units[0].find("b").offset == 15);
  REQUIRE(layout.units[0].element_count == 22);
  REQUIRE(layout.units[0].find("b").name == "first.b");
  REQUIRE(layout.units[1].find("a").name == "second.a");
}

TEST_CASE("units follow each other in canonical elements", "[layout]") {
  const shard::Layout layout = two_units();
  REQUIRE(layout.unit_offset(0) == 0);
  REQUIRE(layout.unit_offset(1) == 22);
  REQUIRE(layout.unit_offset(2) == 278);
  REQUIRE(layout.element_count() == 278);
}

TEST_CASE("padding gives every rank the same multiple of 64 elements", "[layout]") {
  const shard::Layout layout = two_units();
  REQUIRE(layout.padded_count(0, 1) == 64);
  REQUIRE(layout.padded_count(0, 3) == 192);
  REQUIRE(layout.padded_count(1, 1) == 256);
  REQUIRE(layout.padded_count(1, 4) == 256);
  REQUIRE(layout.padded_count(1, 3) == 384);
}
