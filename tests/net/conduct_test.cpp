#include "net/coordinator/conduct.h"

#include "support/catch.h"

namespace net {
namespace {

TEST_CASE("conduct: each offence doubles the rounds that must be kept") {
  Conduct conduct;
  REQUIRE(!conduct.is_on_probation(7));
  for (const int64_t expected : {1, 2, 4, 8, 16, 32, 64, 128, 256, 256}) {
    conduct.offended(7, "it was late");
    REQUIRE(conduct.rounds_to_keep(7) == expected);
    for (int64_t i = 0; i < expected; ++i) {
      REQUIRE(conduct.is_on_probation(7));
      conduct.kept(7);
    }
    REQUIRE(!conduct.is_on_probation(7));
  }
  REQUIRE(conduct.last_offence(7) == "it was late");
  REQUIRE(!conduct.is_on_probation(8));
}

TEST_CASE("conduct: what was long ago is forgotten") {
  Conduct conduct;
  conduct.offended(7, "");
  conduct.offended(7, "");
  for (int i = 0; i < 2; ++i) conduct.kept(7);
  for (int i = 0; i < 64; ++i) conduct.kept(7);
  REQUIRE(conduct.offences(7) == 0);
  conduct.offended(7, "");
  REQUIRE(conduct.rounds_to_keep(7) == 1);
}

TEST_CASE("conduct: nobody waits for who is never ready, until it is again") {
  Conduct conduct;
  conduct.was_ready(7, true);
  conduct.was_ready(7, false);
  REQUIRE(conduct.is_awaited(7));
  conduct.was_ready(7, true);  // Slow, and in every second round.
  conduct.was_ready(7, false);
  REQUIRE(conduct.is_awaited(7));
  for (int i = 0; i < 10; ++i) conduct.was_ready(7, false);
  REQUIRE(!conduct.is_awaited(7));
  for (int i = 0; i < 3; ++i) conduct.was_ready(7, true);
  REQUIRE(conduct.is_awaited(7));
}

TEST_CASE("conduct: whoever makes up new keys does not fill the memory") {
  Conduct conduct;
  conduct.offended(7, "");
  for (uint64_t key = 1000; key < 10000; ++key) conduct.was_ready(key, false);
  REQUIRE(conduct.is_on_probation(7));  // What matters stays.
}

}  // namespace
}  // namespace net
