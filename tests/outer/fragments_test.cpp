// Partitions and schedules, by their defining properties over all small cases.
#include "outer/fragments.h"

#include <algorithm>
#include <set>

#include "fixture.h"
#include "net/message.h"
#include "support/catch.h"

using namespace outer;
using outer::testing::make_layout;

TEST_CASE("every unit is in exactly one fragment, and no fragment is empty", "[outer][fragments]") {
  for (int64_t units = 1; units <= 12; ++units) {
    std::vector<int64_t> sizes;
    for (int64_t u = 0; u < units; ++u) sizes.push_back(10 + u);
    const shard::Layout layout = make_layout(sizes);
    for (int64_t count = 1; count <= units; ++count) {
      INFO(units << " units, " << count << " fragments");
      const std::vector<Fragment> fragments = make_fragments(layout, count);
      REQUIRE(int64_t(fragments.size()) == count);
      std::set<int64_t> seen;
      for (const Fragment& fragment : fragments) {
        REQUIRE(!fragment.units.empty());
        REQUIRE(std::ranges::is_sorted(fragment.units));
        int64_t elements = 0;
        for (const int64_t unit : fragment.units) {
          REQUIRE(seen.insert(unit).second);
          elements += layout.units[size_t(unit)].element_count;
        }
        REQUIRE(fragment.element_count == elements);
      }
      REQUIRE(int64_t(seen.size()) == units);
      REQUIRE(fragments.front().units.front() == 0);
      REQUIRE(fragments.back().units.back() == units - 1);
    }
  }
}

TEST_CASE("blocks are strided over the fragments, embedding and head are their own",
          "[outer][fragments]") {
  const auto layout = make_layout({1, 2, 3, 4, 5, 6, 7});
  auto fragments = make_fragments(layout, 4);
  REQUIRE(fragments[0].units == std::vector<int64_t>{0});
  REQUIRE(fragments[1].units == std::vector<int64_t>{1, 3, 5});
  REQUIRE(fragments[2].units == std::vector<int64_t>{2, 4});
  REQUIRE(fragments[3].units == std::vector<int64_t>{6});
  fragments = make_fragments(layout, 2);
  REQUIRE(fragments[0].units == std::vector<int64_t>{0, 1, 3, 5});
  REQUIRE(fragments[1].units == std::vector<int64_t>{2, 4, 6});
}

TEST_CASE("a wrong number of fragments is bad input", "[outer][fragments]") {
  const shard::Layout layout = make_layout({1, 2, 3});
  REQUIRE_THROWS_AS(make_fragments(layout, 0), base::Error);
  REQUIRE_THROWS_AS(make_fragments(layout, 4), base::Error);
}

TEST_CASE("each fragment is due once in every H steps, spread evenly", "[outer][fragments]") {
  for (const int64_t inner_steps : {1, 2, 5, 8, 100}) {
    for (const int64_t count : {1, 2, 3, 8}) {
      INFO("H " << inner_steps << ", P " << count);
      std::vector<int64_t> last(size_t(count), 0);
      for (int64_t step = 1; step <= 5 * inner_steps; ++step) {
        for (const int64_t f : due_fragments(step, inner_steps, count, 0)) {
          const int64_t first = std::max((f + 1) * inner_steps / count, int64_t{0});
          if (last[size_t(f)] != 0) {
            REQUIRE(step - last[size_t(f)] == inner_steps);
          } else {
            REQUIRE(step == (first == 0 ? inner_steps : first));
          }
          REQUIRE(steps_covered(step, inner_steps, count, f) == step - last[size_t(f)]);
          last[size_t(f)] = step;
        }
        // What the round at the end of a run of so many steps would be about.
        for (int64_t f = 0; f < count; ++f) {
          if (last[size_t(f)] == step) continue;
          REQUIRE(steps_covered(step, inner_steps, count, f) == step - last[size_t(f)]);
        }
      }
      for (const int64_t step : last) REQUIRE(step > 4 * inner_steps);
    }
  }
  REQUIRE(due_fragments(100, 100, 1, 0) == std::vector<int64_t>{0});
  REQUIRE(due_fragments(25, 100, 4, 0) == std::vector<int64_t>{0});
  REQUIRE(due_fragments(150, 100, 4, 0) == std::vector<int64_t>{1});
}

TEST_CASE("all fragments are due at the end, none before the start", "[outer][fragments]") {
  REQUIRE(due_fragments(0, 4, 2, 0).empty());
  REQUIRE(due_fragments(7, 4, 3, 7) == std::vector<int64_t>{0, 1, 2});
  REQUIRE(due_fragments(8, 4, 2, 8) == std::vector<int64_t>{0, 1});
}

TEST_CASE("chunks are whole codec blocks and fit a message", "[outer][fragments]") {
  for (const int64_t elements : {int64_t{1}, int64_t{8192}, int64_t{8193}, int64_t{1'000'000},
                                 int64_t{300'000'000}, int64_t{10'211'381'248}}) {
    const int64_t chunk = chunk_elements(elements);
    REQUIRE(chunk % 512 == 0);
    REQUIRE(chunk >= 8192);
    REQUIRE(4 * chunk + 64 <= net::kDataBytesMax);
    REQUIRE((chunk_count(elements) - 1) * chunk < elements);
    REQUIRE(chunk_count(elements) * chunk >= elements);
    // One byte for each owner in an Open.
    REQUIRE(chunk_count(elements) < net::kControlBytesMax / 2);
  }
}
