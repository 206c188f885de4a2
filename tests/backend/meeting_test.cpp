// Meetings of rank threads: who comes too late is named, whoever fails ends it for all, and nobody
// leaves while another still works.
#include "backend/meeting.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "support/catch.h"
#include "support/child_process.h"

namespace {

using backend::Meeting;
using std::chrono::milliseconds;

constexpr milliseconds kLong(60'000);

std::string failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& error) {
    return error.code() == base::ExitCode::kResourceLost ? error.what() : "not resource_lost";
  }
  return "";
}

// The errors of `body(rank)`, each in a thread of its own.
std::vector<std::string> run(int ranks, const std::function<void(int)>& body) {
  std::vector<std::string> errors(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] { errors[size_t(rank)] = failure_of([&] { body(rank); }); });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace

TEST_CASE("meeting: nobody is inside before all have come, or gone before all have left") {
  constexpr int kRanks = 4, kRounds = 500;
  Meeting meeting(kRanks, kLong);
  std::atomic<int> inside = 0, mistakes = 0;
  const auto errors = run(kRanks, [&](int rank) {
    for (int round = 0; round < kRounds; ++round) {
      if (inside > kRanks * (round + 1)) ++mistakes;
      ++inside;
      meeting.arrive(rank, {.operation = "test", .element_count = round});
      if (inside < kRanks * (round + 1)) ++mistakes;
      meeting.leave(rank);
    }
  });
  REQUIRE(errors == std::vector<std::string>(kRanks));
  REQUIRE(mistakes == 0);
}

TEST_CASE("meeting: whoever does not arrive is named to all others") {
  Meeting meeting(3, milliseconds(30));
  const auto errors = run(3, [&](int rank) {
    if (rank != 1) meeting.arrive(rank, {.operation = "gather"});
  });
  REQUIRE(errors[1].empty());
  REQUIRE(errors[0] == errors[2]);
  // On a busy machine the other one may be late as well.
  REQUIRE(errors[0].starts_with("gather: rank "));
  REQUIRE(errors[0].find("rank 1") != std::string::npos);
  REQUIRE(errors[0].ends_with("did not arrive within 30 ms"));
  REQUIRE(failure_of([&] { meeting.arrive(1, {.operation = "gather"}); }) == errors[0]);
  REQUIRE(failure_of([&] { meeting.check(); }) == errors[0]);
}

TEST_CASE("meeting: whoever does not finish is named to all others") {
  Meeting meeting(3, milliseconds(100));
  const auto errors = run(3, [&](int rank) {
    // Arriving has a deadline too; a machine too busy for it shows in the message.
    meeting.arrive(rank, {.operation = "gather"});
    if (rank != 2) meeting.leave(rank);
  });
  if (errors[0].find("arrive") != std::string::npos) return;
  REQUIRE(errors[2].empty());
  REQUIRE(errors[0] == errors[1]);
  REQUIRE(errors[0].find("rank 2") != std::string::npos);
  REQUIRE(errors[0].ends_with("did not finish within 100 ms"));
}

TEST_CASE("meeting: a rank that fails inside fails all, once all are done") {
  Meeting meeting(3, kLong);
  std::atomic<bool> is_working = true, left_early = false;
  const auto errors = run(3, [&](int rank) {
    meeting.arrive(rank, {.operation = "gather"});
    if (rank == 0) {
      meeting.leave_failed(0, "its device is gone");
      if (is_working) left_early = true;
      return;
    }
    if (rank == 1) {
      // Still reads the others' memory for a while. Time cannot make this fail, only pass unseen.
      const auto end = std::chrono::steady_clock::now() + milliseconds(50);
      while (failure_of([&] { meeting.check(); }).empty() || std::chrono::steady_clock::now() < end)
        std::this_thread::yield();
      is_working = false;
      return meeting.leave(1);
    }
    const std::string error = failure_of([&] { meeting.leave(2); });
    if (is_working) left_early = true;
    throw base::resource_lost(error);
  });
  REQUIRE(errors[0].empty());
  REQUIRE(errors[1] == "rank 0: its device is gone");
  REQUIRE(errors[2] == "rank 0: its device is gone");
  REQUIRE_FALSE(left_early);
  REQUIRE(failure_of([&] { meeting.arrive(1, {.operation = "gather"}); }) == errors[1]);
}

TEST_CASE("meeting: abort ends waits at once, and the first reason stays") {
  Meeting meeting(3, kLong);
  const auto errors = run(3, [&](int rank) {
    if (rank == 2) {
      meeting.abort("the node stops");
      return meeting.abort("another reason");
    }
    meeting.arrive(rank, {.operation = "gather"});
  });
  REQUIRE(errors[0] == "the node stops");
  REQUIRE(errors[1] == "the node stops");
  REQUIRE(failure_of([&] { meeting.arrive(2, {.operation = "gather"}); }) == "the node stops");
}

TEST_CASE("meeting: what fails after all have left does not concern it") {
  for (int attempt = 0; attempt < 200; ++attempt) {
    Meeting meeting(3, kLong);
    const auto errors = run(3, [&](int rank) {
      meeting.arrive(rank, {.operation = "gather"});
      meeting.leave(rank);
      // Others may not have woken up yet.
      meeting.abort("the end");
    });
    REQUIRE(errors == std::vector<std::string>(3));
  }
}

TEST_CASE("meeting: one rank meets itself") {
  Meeting meeting(1, kLong);
  for (int i = 0; i < 3; ++i) {
    meeting.arrive(0, {.operation = "gather", .element_count = i});
    meeting.leave(0);
  }
}

TEST_CASE("meeting: ranks that want different things are a bug") {
  const test::ChildEnd end = test::run_in_child([] {
    Meeting meeting(2, kLong);
    std::thread other([&] { meeting.arrive(1, {.operation = "gather", .element_count = 4}); });
    meeting.arrive(0, {.operation = "reduce", .element_count = 4});
    other.join();
  });
  REQUIRE(end.was_aborted());
  REQUIRE(end.stderr_text.find("ranks met for ") != std::string::npos);
}
