// The search for the fastest candidate, with times that are made up.
#include "cuda/fastest.h"

#include <vector>

#include "support/catch.h"

namespace {

constexpr float kFails = std::numeric_limits<float>::infinity();

struct Search {
  cuda::Fastest fastest;
  std::vector<int> runs;  // Of each candidate.
};

Search search(const std::vector<float>& times, float milliseconds_max = 1000) {
  Search s{.fastest = {}, .runs = std::vector<int>(times.size())};
  s.fastest = cuda::find_fastest(
      times.size(),
      [&](size_t i) {
        // The first run of a kernel also loads it.
        return times[i] * (s.runs[i]++ == 0 ? 10.0f : 1.0f);
      },
      milliseconds_max);
  return s;
}

}  // namespace

TEST_CASE("the fastest candidate is found, and slow ones are left after their warm-up") {
  const Search s = search({2.0f, 1.4f, 1.0f, 1.6f, 1.3f});
  REQUIRE(s.fastest.index == 2);
  REQUIRE(s.fastest.milliseconds == 1.0f);
  REQUIRE(s.fastest.first_milliseconds == 2.0f);
  REQUIRE(s.fastest.tried == 5);
  REQUIRE(s.runs == std::vector<int>{7, 7, 7, 2, 7});
}

TEST_CASE("a candidate's time is the median of its runs") {
  std::vector<float> runs{9, 1, 3, 8, 2, 2, 50};
  const cuda::Fastest fastest = cuda::find_fastest(
      1, [&, n = size_t{0}](size_t) mutable { return runs.at(n++); }, 1000);
  REQUIRE(fastest.milliseconds == 3.0f);
}

TEST_CASE("candidates that fail are not chosen") {
  Search s = search({kFails, 3.0f, kFails, 2.5f});
  REQUIRE(s.fastest.index == 3);
  REQUIRE(s.fastest.first_milliseconds == kFails);
  REQUIRE(s.runs == std::vector<int>{1, 7, 1, 7});
  s = search({kFails, kFails});
  REQUIRE(s.fastest.index == 0);
  REQUIRE(s.fastest.milliseconds == kFails);
}

TEST_CASE("the search for the fastest candidate ends when its time is spent") {
  // Each takes 10 + 6 runs' time.
  const Search s = search({100.0f, 99.0f, 98.0f, 1.0f}, 3000);
  REQUIRE(s.fastest.tried == 2);
  REQUIRE(s.fastest.index == 1);
  REQUIRE(search({5000.0f, 1.0f}, 1).fastest.tried == 1);  // The first one always.
}
