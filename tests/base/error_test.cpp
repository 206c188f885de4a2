// Errors carry code, message and hint; results hold one of two things; a failed CHECK names its
// place and kills the process, which a forked child shows.
#include "base/error.h"

#include "support/child_process.h"

namespace {

void break_invariant() {
  CHECK(1 + 1 == 3, "the sum is {}", 2);
}
void keep_invariant() {
  CHECK(1 + 1 == 2, "the sum is {}", 2);
}

}  // namespace

#include "support/catch.h"

TEST_CASE("A failed CHECK prints condition, message and place, and aborts", "[error]") {
  const test::ChildEnd end = test::run_in_child(break_invariant);
  REQUIRE(end.was_aborted());
  REQUIRE(end.stderr_text.find("CHECK(1 + 1 == 3) failed: the sum is 2") != std::string::npos);
  REQUIRE(end.stderr_text.find("error_test.cpp:") != std::string::npos);
}

TEST_CASE("A CHECK that holds does nothing", "[error]") {
  const test::ChildEnd end = test::run_in_child(keep_invariant);
  REQUIRE(end.exited_normally());
  REQUIRE(end.stderr_text.empty());
}

TEST_CASE("Errors carry their exit code, message and hint", "[error]") {
  const base::Error input = base::bad_input("cannot read x", "look at x");
  REQUIRE(input.code() == base::ExitCode::kBadInput);
  REQUIRE(std::string(input.what()) == "cannot read x");
  REQUIRE(input.hint() == "look at x");
  REQUIRE(base::resource_lost("disk").code() == base::ExitCode::kResourceLost);
}

TEST_CASE("A Result holds a value or a reason", "[error]") {
  base::Result<std::string> value = std::string("word");
  REQUIRE(value.ok());
  REQUIRE(*value == "word");
  REQUIRE(value->size() == 4);
  const base::Result<std::string> failure = base::Failure{"gone"};
  REQUIRE(!failure);
  REQUIRE(failure.reason() == "gone");
  REQUIRE(base::Result<void>().ok());
  REQUIRE(base::Result<void>(base::Failure{"late"}).reason() == "late");
}
