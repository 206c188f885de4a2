// Threads of ranks: commands, errors, and the end of a process whose rank does not come back.
#include "train/rank_threads.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <vector>

#include "base/error.h"
#include "support/catch.h"
#include "support/child_process.h"

namespace {

using train::RankThreads;

struct Caught {
  base::ExitCode code = base::ExitCode::kDone;
  std::string text, hint;
};
Caught error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& error) {
    return {error.code(), error.what(), error.hint()};
  }
  return {};
}

// Where a rank waits until another one has failed.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false;
};

}  // namespace

TEST_CASE("rank threads: every rank runs every command, in the thread that entered", "[ranks]") {
  std::vector<std::thread::id> entered(4), worked(4);
  RankThreads threads(
      {.ranks = 4, .enter = [&](int rank) { entered[size_t(rank)] = std::this_thread::get_id(); }});
  std::atomic<int> calls = 0;
  for (int i = 0; i < 50; ++i) {
    threads.run([&](int rank) {
      worked[size_t(rank)] = std::this_thread::get_id();
      ++calls;
    });
    REQUIRE(calls == 4 * (i + 1));
    REQUIRE((worked == entered));
  }
}

TEST_CASE("rank threads: an error names its rank, keeps code and hint, and frees the others",
          "[ranks]") {
  Gate gate;
  std::string aborted_with;
  RankThreads threads({.ranks = 3, .abort = [&](const std::string& reason) {
                         aborted_with = reason;
                         gate.open();
                       }});
  const Caught caught = error_of([&] {
    threads.run([&](int rank) {
      if (rank == 1) throw base::bad_input("a token is wrong", "prepare again");
      gate.pass();
      throw base::resource_lost("a consequence");  // Not the cause.
    });
  });
  REQUIRE(caught.code == base::ExitCode::kBadInput);
  REQUIRE(caught.text == "rank 1 of 3: a token is wrong");
  REQUIRE(caught.hint == "prepare again");
  REQUIRE(aborted_with == "rank 1 has failed: a token is wrong");
  // And it can go on.
  std::atomic<int> ran = 0;
  threads.run([&](int rank) { ran += rank == 0; });
  REQUIRE(ran == 1);
}

TEST_CASE("rank threads: memory that cannot be had is a lost resource", "[ranks]") {
  RankThreads threads({.ranks = 2});
  const Caught caught = error_of([&] {
    threads.run([&](int rank) {
      if (rank == 0) throw std::bad_alloc();
    });
  });
  REQUIRE(caught.code == base::ExitCode::kResourceLost);
  REQUIRE(caught.text == "rank 0 of 2: out of memory");
}

TEST_CASE("rank threads: one rank is not named", "[ranks]") {
  RankThreads threads({.ranks = 1});
  REQUIRE(error_of([&] { threads.run([](int) { throw base::bad_input("wrong"); }); }).text ==
          "wrong");
}

TEST_CASE("rank threads: a failure while entering is reported by the first command", "[ranks]") {
  RankThreads threads({.ranks = 2, .enter = [](int rank) {
                         if (rank == 1) throw base::resource_lost("no such device");
                       }});
  REQUIRE(error_of([&] { threads.run([](int) {}); }).text == "rank 1 of 2: no such device");
}

TEST_CASE("rank threads: a rank that never comes back ends the process with exit code 3",
          "[ranks]") {
  const test::ChildEnd end = test::run_in_child([] {
    Gate never;
    RankThreads threads({.ranks = 3, .patience = std::chrono::milliseconds(50)});
    threads.run([&](int rank) {
      if (rank == 2) never.pass();
      if (rank == 0) throw base::resource_lost("a collective failed");
    });
  });
  INFO(end.stderr_text);
  REQUIRE(WIFEXITED(end.status));
  REQUIRE(WEXITSTATUS(end.status) == 3);
  REQUIRE(end.stderr_text.find("rank 0 of 3: a collective failed") != std::string::npos);
  REQUIRE(end.stderr_text.find("rank 2 did not come back within 50 ms") != std::string::npos);
}

TEST_CASE("rank threads: what must end in time", "[ranks]") {
  RankThreads threads({.ranks = 2});
  std::atomic<int> calls = 0;
  threads.run_within(std::chrono::minutes(10), [&](int) { ++calls; });
  REQUIRE(calls == 2);
  const Caught caught = error_of([&] {
    threads.run_within(std::chrono::minutes(10), [](int rank) {
      if (rank == 1) throw base::resource_lost("gone");
    });
  });
  REQUIRE(caught.text == "rank 1 of 2: gone");
}

TEST_CASE("rank threads: what does not end in time ends the process", "[ranks]") {
  const test::ChildEnd end = test::run_in_child([] {
    Gate never;
    RankThreads threads({.ranks = 2});
    threads.run_within(std::chrono::milliseconds(50), [&](int rank) {
      if (rank == 1) never.pass();
    });
  });
  INFO(end.stderr_text);
  REQUIRE(WIFEXITED(end.status));
  REQUIRE(WEXITSTATUS(end.status) == 3);
  REQUIRE(end.stderr_text.find("rank 1 did not come back within 50 ms") != std::string::npos);
}

TEST_CASE("rank threads: ranks that all hang in what cannot end are noticed", "[ranks]") {
  const test::ChildEnd end = test::run_in_child([] {
    Gate never;
    RankThreads threads({.ranks = 2,
                         .check = [] { throw base::resource_lost("reduce 7: torn down"); },
                         .check_period = std::chrono::milliseconds(5),
                         .patience = std::chrono::milliseconds(50)});
    threads.run([&](int) { never.pass(); });
  });
  INFO(end.stderr_text);
  REQUIRE(WIFEXITED(end.status));
  REQUIRE(WEXITSTATUS(end.status) == 3);
  REQUIRE(end.stderr_text.find("reduce 7: torn down; rank 0, rank 1 did not come back within") !=
          std::string::npos);
}

TEST_CASE("rank threads: a check that finds nothing disturbs nothing", "[ranks]") {
  Gate gate;
  int checks = 0;
  RankThreads threads({.ranks = 2,
                       .check =
                           [&] {
                             if (++checks == 3) gate.open();
                           },
                       .check_period = std::chrono::milliseconds(1)});
  threads.run([&](int) { gate.pass(); });
  REQUIRE(checks >= 3);
}
