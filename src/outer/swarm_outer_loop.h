// The outer loop is a reaction to events: whatever waits, waits in take_part(), and every event
// goes through handle(), in whichever phase it arrives. What a fragment's round has come to at this
// node stands in outer/fragment_progress.h.
//
// The word "position" is the global inner step at which this node stands. A fragment is announced
// at most once per position, and what decides is a step, not a count of rounds, so that rounds that
// were held without us need no bookkeeping.
#pragma once

#include <chrono>

#include "outer/fragment_progress.h"
#include "outer/outer_loop.h"

namespace outer {

using LoopClock = std::chrono::steady_clock;
inline double seconds_since(LoopClock::time_point start) {
  return std::chrono::duration<double>(LoopClock::now() - start).count();
}

class SwarmOuterLoop final : public OuterLoop {
 public:
  SwarmOuterLoop(const Options& options, OuterState& state, net::Swarm& swarm)
      : options_(options),
        state_(state),
        swarm_(swarm),
        fragments_(static_cast<size_t>(state.fragment_count())),
        position_(options.position) {
    // What was due before is in the state, or in flight.
    for (FragmentProgress& progress : fragments_) progress.synced_step = position_;
  }

  std::optional<Entry> join(bool has_local_progress,
                            const std::function<bool()>& stop_requested) override;
  StepOutcome after_step(uint64_t steps_done, int64_t tokens, double loss,
                         const std::function<bool()>& stop_requested) override;
  void need_samples(uint64_t count) override { swarm_.need_samples(count); }
  StepOutcome wait_for_samples(const std::function<bool()>& stop_requested) override;
  uint64_t samples() const override { return samples_; }
  void leave(const std::string& reason) override { swarm_.leave(reason); }
  std::vector<InFlight> in_flight() const override;
  void restore_in_flight(const std::vector<InFlight>& in_flight) override;
  uint64_t committed_step() const override { return committed_step_; }
  std::vector<int64_t> tokens_since_commit() const override;
  void restore_tokens_since_commit(std::vector<int64_t> tokens) override;

 private:
  // Waiting, announcing and merging: outer_loop.cpp.
  std::string differences_to(const std::string& shared_config) const {
    if (shared_config.empty() || !options_.config_differences) return {};
    return "\n" + options_.config_differences(shared_config);
  }
  bool is_last_step() const {
    return options_.steps_total > 0 && position_ >= uint64_t(options_.steps_total);
  }
  bool is_due(int64_t fragment) const;
  std::optional<int64_t> holds_us_up() const;
  enum class Samples { kIfThere, kWanted };
  void take_part(StepOutcome& outcome, Samples samples,
                 const std::function<bool()>& stop_requested);
  std::optional<net::MemberEvent> wait();
  void end_without_others();
  void merge_and_announce(StepOutcome& outcome);
  void announce_all(StepOutcome& outcome);
  void announce(int64_t fragment);
  void tell_ready(int64_t fragment);
  void withdraw(int64_t fragment);
  void tell_applied(int64_t fragment);
  void merge(int64_t fragment, StepOutcome& outcome);
  void merge_all(StepOutcome& outcome);
  Merge merge_rule(const FragmentProgress& progress) const;

  // What each event means: outer_events.cpp.
  void handle(net::MemberEvent& event, StepOutcome& outcome);
  void on_event(const net::CatchUpNeeded& event, StepOutcome& outcome);
  void on_event(const net::Fetched& event, StepOutcome& outcome);
  void on_event(const net::Started& event, StepOutcome& outcome);
  void on_event(const net::SamplesGranted& event, StepOutcome& outcome);
  void on_event(const net::MembershipChanged& event, StepOutcome& outcome);
  void on_event(const net::StandingChanged& event, StepOutcome& outcome);
  void on_event(const net::Committed& event, StepOutcome& outcome);
  void on_event(const net::Stopped& event, StepOutcome& outcome);
  void settle(const net::Committed& event);
  void settle_missed();
  RoundReport report_of(const net::Committed& event, const FragmentProgress& progress);
  RoundFindings report_findings(const net::Committed& event);
  void move_to(uint64_t step, StepOutcome& outcome);

  const Options options_;
  OuterState& state_;
  net::Swarm& swarm_;
  std::vector<FragmentProgress> fragments_;
  uint64_t position_;
  uint64_t committed_step_ = 0;
  uint64_t samples_ = 0;       // Handed out, as far as we have heard.
  bool has_progress_ = false;  // Local parameters are worth keeping when the state is replaced.
  bool is_replacing_ =
      false;  // From CatchUpNeeded until the fetched state is verified: local is not valid.
  int64_t fetch_attempts_ = 0;
  std::optional<net::Stopped> stopped_;
};

}  // namespace outer
