// Where the threads of all ranks of a node meet: before a collective, and when it is queued on all
// devices. Nobody waits for ever.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend/tensor.h"

namespace backend {

// What a rank brings to a meeting. All ranks must bring the same kind of thing.
struct Proposal {
  const char* operation = "";  // "all_gather"; a literal.
  int64_t element_count = 0;
  DType dtype = DType::kFloat32;
  bool operator==(const Proposal&) const;
};

// Ranks call arrive() and leave() in turn. Threads: one per rank, and any for abort().
class Meeting {
 public:
  // REQUIRES: 1 <= ranks <= kRanksMax.
  Meeting(int ranks, std::chrono::milliseconds timeout);

  int rank_count() const { return int(states_.size()); }
  std::chrono::milliseconds timeout() const { return timeout_; }

  // Returns when all ranks have called it. Throws resource_lost, naming who is missing, if they did
  // not within the timeout; after that, and after abort(), always. That ranks propose different
  // things is a bug.
  void arrive(int rank, const Proposal& proposal);
  // Returns when all ranks have called it; throws like arrive(). REQUIRES: arrive() returned.
  void leave(int rank);
  // Instead, for a rank that cannot do its part of what was agreed on: everybody fails. Returns
  // when all have left, or after the timeout.
  void leave_failed(int rank, const std::string& reason);

  // Everybody who waits or calls from now on throws resource_lost with this reason. Only the first
  // one counts.
  void abort(const std::string& reason);
  // Throws the reason if there is one.
  void check();

 private:
  enum class State { kAway, kArrived, kInside, kLeaving };

  [[noreturn]] void throw_failure() const;
  void set_failure(const std::string& reason);
  void wait(std::unique_lock<std::mutex>& lock, int rank);
  void begin_phase(State state);
  std::string ranks_not(State state) const;

  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<State> states_;
  std::vector<Proposal> proposals_;
  int count_ = 0;      // Ranks that have arrived, or that are leaving.
  int64_t phase_ = 0;  // Counts arrivals of all and departures of all.
  std::optional<std::string> failure_;
  bool has_failed_inside_ = false;  // Before all had left.
};

}  // namespace backend
