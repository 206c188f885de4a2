// How many connections a path gets, by the rates that they would have.
#include "net/exchange/path.h"

#include <algorithm>
#include <functional>

#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kChunk = 256 * 1024;

// A path whose rate is a function of the number of connections, and a fetcher that uses as many as
// it is told.
struct FakePath {
  std::function<double(int64_t link_count)> bytes_per_second;
  Path path{16};
  Instant now = seconds(5);
  bool has_more = true;
  int64_t link_count_max = 0;

  void carry(Duration time) {
    const Instant end = now + time;
    while (now < end) {
      const int64_t links = path.link_count();
      link_count_max = std::max(link_count_max, links);
      now += Duration(int64_t(1e9 * double(kChunk) / bytes_per_second(links)));
      path.on_arrival(kChunk, links, has_more, now);
    }
  }
};

TEST_CASE("path: a long one gets as many connections as bring more") {
  // What one connection has in its buffers, 4 MiB, per round trip of 200 ms; the line has 1 Gbit/s.
  FakePath fake{[](int64_t links) { return std::min(20e6 * double(links), 125e6); }};
  fake.path.on_connected(milliseconds(200));
  fake.carry(seconds(60));
  REQUIRE(fake.path.link_count() == 8);
  REQUIRE(fake.link_count_max == 16);  // It was tried, and brought nothing.
  REQUIRE(*fake.path.window_bytes() >= 25'000'000);
  REQUIRE(*fake.path.window_bytes() <= 75'000'000);
}

TEST_CASE(
    "path: a second connection that brings nothing is taken back, and tried ever less often") {
  FakePath fake{[](int64_t) { return 20e6; }};
  fake.path.on_connected(milliseconds(100));
  int64_t trial_count = 0;
  for (int second = 0; second < 1000; ++second) {
    const int64_t before = fake.path.link_count();
    fake.carry(seconds(1));
    trial_count += before == 1 && fake.path.link_count() == 2;
    REQUIRE(fake.path.link_count() <= 2);
  }
  REQUIRE(fake.path.link_count() == 1);
  REQUIRE(trial_count >= 3);
  REQUIRE(trial_count <= 8);
}

TEST_CASE("path: a short one has one connection, however much two would bring") {
  FakePath fake{[](int64_t links) { return 60e6 * double(links); }};
  fake.path.on_connected(milliseconds(1));
  fake.carry(seconds(30));
  REQUIRE(fake.link_count_max == 1);
}

TEST_CASE("path: the first seconds, which a connection does not keep up, are no measure") {
  FakePath fake;
  fake.bytes_per_second = [&](int64_t links) {
    return fake.now < seconds(8) ? 50e6 : std::min(4e6 * double(links), 25e6);
  };
  fake.path.on_connected(milliseconds(200));
  fake.carry(seconds(120));
  REQUIRE(fake.path.link_count() == 8);
}

TEST_CASE("path: what there was no more to ask for says nothing about connections") {
  FakePath fake{[](int64_t links) { return 20e6 * double(links); }};
  fake.path.on_connected(milliseconds(200));
  fake.has_more = false;
  fake.carry(seconds(30));
  REQUIRE(fake.link_count_max == 1);
  REQUIRE(fake.path.window_bytes());
}

TEST_CASE("path: time in which nothing is asked for does not count") {
  FakePath fake{[](int64_t links) { return std::min(20e6 * double(links), 125e6); }};
  fake.path.on_connected(milliseconds(200));
  for (int round = 0; round < 30; ++round) {
    fake.carry(seconds(3));
    fake.path.on_idle();
    fake.now += seconds(1800);
  }
  fake.carry(seconds(8));  // The last try comes to its end.
  REQUIRE(fake.path.link_count() == 8);
}

TEST_CASE("path: connections go when the path does not need them any more") {
  double line = 125e6;
  FakePath fake{[&](int64_t links) { return std::min(20e6 * double(links), line); }};
  fake.path.on_connected(milliseconds(200));
  fake.carry(seconds(60));
  REQUIRE(fake.path.link_count() == 8);
  line = 1e6;  // Shared with many.
  fake.carry(seconds(300));
  REQUIRE(fake.path.link_count() <= 3);
}

TEST_CASE("path: a connection that is refused is not tried again at once") {
  FakePath fake{[](int64_t links) { return 20e6 * double(links); }};
  fake.path.on_connected(milliseconds(200));
  for (int i = 0; i < 1000 && fake.path.link_count() < 4; ++i) fake.carry(milliseconds(100));
  REQUIRE(fake.path.link_count() == 4);
  fake.path.on_refused(3, fake.now);
  REQUIRE(fake.path.link_count() == 3);
  fake.carry(seconds(9));
  REQUIRE(fake.path.link_count() == 3);
  fake.carry(seconds(30));
  REQUIRE(fake.path.link_count() > 3);
}

TEST_CASE("path: what it carries is measured while contributions are due") {
  using std::chrono::milliseconds;
  Path path(16);
  const Instant start = Instant(std::chrono::seconds(100));
  REQUIRE(path.carried_per_second() == 0);
  path.on_carried(1000, true, start);  // Nobody knows when it began.
  path.on_carried(1000, true, start + milliseconds(10));
  REQUIRE(path.carried_per_second() == 0);
  path.on_carried(3000, false, start + milliseconds(20));
  REQUIRE(path.carried_per_second() == 4000 / 0.020);
  // What comes when it was made, not when it was asked for, says nothing.
  path.on_carried(1000, false, start + milliseconds(500));
  REQUIRE(path.carried_per_second() == 4000 / 0.020);
  // A run that was broken off says nothing either.
  path.on_carried(1000, true, start + milliseconds(600));
  path.on_idle();
  path.on_carried(1000, true, start + milliseconds(900));
  path.on_carried(1000, false, start + milliseconds(1000));
  REQUIRE(path.carried_per_second() == 1000 / 0.1);
}

}  // namespace
}  // namespace net
