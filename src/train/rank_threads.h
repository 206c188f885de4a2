// One thread per rank, and one command for all of them at a time.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

namespace train {

class RankThreads {
 public:
  struct Options {
    int ranks = 1;
    // In the rank's thread, first of all.
    std::function<void(int rank)> enter = {};
    // When a rank has failed, from its thread, once: makes the others' waits end.
    std::function<void(const std::string& reason)> abort = {};
    // From the caller's thread, now and then while ranks work: throws if what they do cannot end
    // any more. That counts as a failure, of no rank.
    std::function<void()> check = {};
    std::chrono::milliseconds check_period{1'000};
    // How long the others then have.
    std::chrono::milliseconds patience{10'000};
  };
  explicit RankThreads(const Options& options);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  // Calls body(rank) in every rank's thread and returns when all have returned. If ranks throw, the
  // first error in time is thrown here, naming its rank; memory that could not be had is
  // resource_lost. If a rank then does not return within the patience, nothing that it uses can be
  // freed: the process ends at once, with exit code 3 and a message. REQUIRES: not called while it
  // runs.
  void run(const std::function<void(int rank)>& body);
  // The same for what must end: a rank that is not back after `limit` ends the process in that way.
  void run_within(std::chrono::milliseconds limit, const std::function<void(int rank)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace train
