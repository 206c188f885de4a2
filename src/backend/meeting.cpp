#include "backend/meeting.h"

#include <fmt/format.h>
#include <string_view>

#include "backend/device.h"
#include "base/error.h"

namespace backend {

bool Proposal::operator==(const Proposal& other) const {
  return std::string_view(operation) == other.operation && element_count == other.element_count &&
         dtype == other.dtype;
}

Meeting::Meeting(int ranks, std::chrono::milliseconds timeout)
    : timeout_(timeout), states_(size_t(ranks)), proposals_(size_t(ranks)) {
  CHECK(ranks >= 1 && ranks <= kRanksMax, "{} ranks", ranks);
}

void Meeting::arrive(int rank, const Proposal& proposal) {
  std::unique_lock lock(mutex_);
  if (failure_) throw_failure();
  proposals_[size_t(rank)] = proposal;
  states_[size_t(rank)] = State::kArrived;
  if (++count_ < rank_count()) return wait(lock, rank);
  for (const Proposal& other : proposals_) {
    CHECK(other == proposal, "ranks met for {} of {} elements and {} of {}", proposal.operation,
          proposal.element_count, other.operation, other.element_count);
  }
  begin_phase(State::kInside);
}

void Meeting::leave(int rank) {
  std::unique_lock lock(mutex_);
  states_[size_t(rank)] = State::kLeaving;
  if (++count_ < rank_count()) {
    wait(lock, rank);
  } else {
    begin_phase(State::kAway);
  }
  // Only now: nobody may have read our memory any more when we give up. What fails once all have
  // left does not concern this meeting.
  if (has_failed_inside_) throw_failure();
}

// Others may still read our memory.
void Meeting::leave_failed(int rank, const std::string& reason) {
  std::unique_lock lock(mutex_);
  set_failure(fmt::format("rank {}: {}", rank, reason));
  states_[size_t(rank)] = State::kLeaving;
  if (++count_ == rank_count()) return begin_phase(State::kAway);
  changed_.wait_for(lock, timeout_, [this, phase = phase_] { return phase_ != phase; });
}

void Meeting::abort(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  set_failure(reason);
}

void Meeting::check() {
  const std::lock_guard lock(mutex_);
  if (failure_) throw_failure();
}

// REQUIRES for all that follow: locked.

void Meeting::throw_failure() const {
  throw base::resource_lost(*failure_,
                            "Start the node again; if it comes back, test that rank's device.");
}

void Meeting::set_failure(const std::string& reason) {
  if (!failure_) failure_ = reason;
  changed_.notify_all();
}

void Meeting::begin_phase(State state) {
  has_failed_inside_ = state == State::kAway && failure_;
  states_.assign(states_.size(), state);
  count_ = 0;
  ++phase_;
  changed_.notify_all();
}

// Whoever is inside a collective reads the memory of others. So a failure frees those that wait for
// others to arrive at once, but those that wait for others to leave only with the deadline.
void Meeting::wait(std::unique_lock<std::mutex>& lock, int rank) {
  const State waiting = states_[size_t(rank)];
  const int64_t phase = phase_;
  const bool may_give_up = waiting == State::kArrived;
  const bool is_over = changed_.wait_for(
      lock, timeout_, [&] { return phase_ != phase || (may_give_up && failure_); });
  if (phase_ != phase) return;
  if (!is_over) {
    set_failure(fmt::format("{}: {} did not {} within {} ms", proposals_[size_t(rank)].operation,
                            ranks_not(waiting), may_give_up ? "arrive" : "finish",
                            timeout_.count()));
  }
  throw_failure();
}

std::string Meeting::ranks_not(State state) const {
  std::string ranks;
  for (size_t rank = 0; rank < states_.size(); ++rank) {
    if (states_[rank] != state) ranks += fmt::format("{}rank {}", ranks.empty() ? "" : ", ", rank);
  }
  return ranks;
}

}  // namespace backend
