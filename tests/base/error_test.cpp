// Errors carry code, message and hint; results hold one of two things; a failed CHECK names its
// place and kills the process, which a forked child shows.
#include "base/error.h"

#include <array>
#include <csignal>
#include <functional>
#include <sys/wait.h>
#include <unistd.h>

namespace {

struct ChildEnd {
  int status;
  std::string stderr_text;
};

// Runs `body` in a child process and collects what it writes to stderr.
ChildEnd run_in_child(const std::function<void()>& body) {
  std::array<int, 2> ends;
  if (pipe(ends.data()) != 0) throw base::resource_lost("pipe failed");
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // Without the test framework's handler.
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    body();
    _exit(0);
  }
  close(ends[1]);
  ChildEnd end{.status = 0, .stderr_text = {}};
  std::array<char, 4096> block;
  for (ssize_t count; (count = read(ends[0], block.data(), block.size())) > 0;) {
    end.stderr_text.append(block.data(), size_t(count));
  }
  close(ends[0]);
  waitpid(child, &end.status, 0);
  return end;
}

void break_invariant() {
  CHECK(1 + 1 == 3, "the sum is {}", 2);
}
void keep_invariant() {
  CHECK(1 + 1 == 2, "the sum is {}", 2);
}

}  // namespace

#undef CHECK
#include "support/catch.h"

TEST_CASE("A failed CHECK prints condition, message and place, and aborts", "[error]") {
  const ChildEnd end = run_in_child(break_invariant);
  REQUIRE(WIFSIGNALED(end.status));
  REQUIRE(WTERMSIG(end.status) == SIGABRT);
  REQUIRE(end.stderr_text.find("CHECK(1 + 1 == 3) failed: the sum is 2") != std::string::npos);
  REQUIRE(end.stderr_text.find("error_test.cpp:") != std::string::npos);
}

TEST_CASE("A CHECK that holds does nothing", "[error]") {
  const ChildEnd end = run_in_child(keep_invariant);
  REQUIRE(WIFEXITED(end.status));
  REQUIRE(WEXITSTATUS(end.status) == 0);
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
