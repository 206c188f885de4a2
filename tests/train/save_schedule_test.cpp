// When checkpoints are due.
#include "train/save_schedule.h"

#include <set>
#include <vector>

#include "support/catch.h"

namespace {

// The steps up to `last` after which a save is due, with every attempt a success.
std::vector<int64_t> due_steps(train::SaveSchedule schedule, int64_t last,
                               const std::set<int64_t>& skipped = {}) {
  std::vector<int64_t> due;
  for (int64_t step = 1; step <= last; ++step)
    if (schedule.is_due(step, skipped.contains(step))) due.push_back(step);
  return due;
}

}  // namespace

TEST_CASE("save schedule: every so many steps, or never") {
  REQUIRE(due_steps(train::SaveSchedule(4), 12) == std::vector<int64_t>{4, 8, 12});
  REQUIRE(due_steps(train::SaveSchedule(0), 12).empty());
}

TEST_CASE("save schedule: what falls into a streak of skipped steps comes after it") {
  REQUIRE(due_steps(train::SaveSchedule(4), 13, {3, 4, 5, 8}) == std::vector<int64_t>{6, 9, 12});
  REQUIRE(due_steps(train::SaveSchedule(4), 8, {4, 5, 6, 7, 8}).empty());
}

TEST_CASE("save schedule: what failed is tried again soon, and again") {
  train::SaveSchedule schedule(100);
  REQUIRE(schedule.is_due(100, false));
  REQUIRE(schedule.failed(100) == 110);
  for (int64_t step = 101; step < 110; ++step) REQUIRE_FALSE(schedule.is_due(step, false));
  REQUIRE(schedule.is_due(110, false));
  REQUIRE(schedule.failed(110) == 120);
  REQUIRE(schedule.is_due(125, false));  // A node that jumped over the step.
  for (int64_t step = 126; step < 200; ++step) REQUIRE_FALSE(schedule.is_due(step, false));
  REQUIRE(schedule.is_due(200, false));
  train::SaveSchedule often(3);
  REQUIRE(often.is_due(3, false));
  REQUIRE(often.failed(3) == 4);
}
