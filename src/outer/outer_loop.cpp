// Waiting for events, and what is done at the boundary of a step: merging and announcing.
#include <algorithm>

#include "base/log.h"
#include "outer/swarm_outer_loop.h"

namespace outer {

namespace {

// How often a stop request is looked at while waiting.
constexpr net::Duration kPollInterval = std::chrono::milliseconds(100);

// A node that is held up for so long by a fragment that nobody else is going to say (a newcomer, or
// one that was moved over its turn) says all others too: two that hold each other up meet there.
constexpr net::Duration kHeldPatience = std::chrono::minutes(5);

// What is left of the state is not whole.
constexpr const char* kFromCheckpoint = "start the node again: it goes on from its last checkpoint";

// What happens to others is no sign that anything will happen to us.
bool is_about_us(const net::MemberEvent& event) {
  if (const auto* granted = std::get_if<net::SamplesGranted>(&event)) return granted->count > 0;
  return !std::holds_alternative<net::MembershipChanged>(event) &&
         !std::holds_alternative<net::StandingChanged>(event);
}

}  // namespace

std::optional<OuterLoop::Entry> SwarmOuterLoop::join(bool has_local_progress,
                                                     const std::function<bool()>& stop_requested) {
  has_progress_ = has_local_progress;
  StepOutcome outcome;
  net::Duration silence{0};
  while (!outcome.peer) {
    if (stop_requested()) return std::nullopt;
    std::optional<net::MemberEvent> event = swarm_.wait(kPollInterval);
    if (!event) silence += kPollInterval;
    if (event && is_about_us(*event)) silence = net::Duration{0};
    if (event) handle(*event, outcome);
    if (stopped_) {
      if (stopped_->restart_makes_sense) {
        throw base::resource_lost(fmt::format("joining the swarm: {}", stopped_->reason),
                                  is_replacing_
                                      ? kFromCheckpoint
                                      : "check swarm.coordinator and that the coordinator runs");
      }
      throw base::bad_input(
          fmt::format("the coordinator rejects this node: {}{}", stopped_->reason,
                      differences_to(stopped_->shared_config)),
          "use one config on all nodes; only the node section and the batch may differ");
    }
    if (silence >= options_.join_timeout) {
      throw base::resource_lost(
          fmt::format("joining the swarm: nothing was heard for {} s",
                      std::chrono::duration_cast<std::chrono::seconds>(silence).count()),
          "it may be waiting for more members to start");
    }
  }
  has_progress_ = true;
  return Entry{.peer = *outcome.peer,
               .step = position_,
               .samples_void_below = outcome.samples_void_below,
               .state_replaced = outcome.state_replaced,
               .memberships = std::move(outcome.memberships),
               .standings = std::move(outcome.standings)};
}

StepOutcome SwarmOuterLoop::after_step(uint64_t steps_done, int64_t tokens, double loss,
                                       const std::function<bool()>& stop_requested) {
  StepOutcome outcome;
  position_ = steps_done;
  for (FragmentProgress& progress : fragments_) progress.tokens += tokens;
  swarm_.progress(steps_done, float(loss));
  while (!stopped_) {
    std::optional<net::MemberEvent> event = swarm_.wait(net::Duration{0});
    if (!event) break;
    handle(*event, outcome);
  }
  if (!stopped_) merge_and_announce(outcome);
  take_part(outcome, Samples::kIfThere, stop_requested);
  if (stopped_) outcome.lost = stopped_->reason;
  return outcome;
}

StepOutcome SwarmOuterLoop::wait_for_samples(const std::function<bool()>& stop_requested) {
  StepOutcome outcome;
  take_part(outcome, Samples::kWanted, stop_requested);
  if (stopped_) outcome.lost = stopped_->reason;
  return outcome;
}

// Waits until no round and no replacement holds us up, and nothing is wanted that is not there.
void SwarmOuterLoop::take_part(StepOutcome& outcome, Samples samples,
                               const std::function<bool()>& stop_requested) {
  bool is_told = false;
  net::Duration held{0};
  const auto lacks_samples = [&] { return samples == Samples::kWanted && outcome.samples.empty(); };
  net::Duration silence{0};
  while (!stopped_ && (is_replacing_ || holds_us_up() || lacks_samples())) {
    if (stop_requested()) break;  // What is in flight may be saved.
    std::optional<net::MemberEvent> event = wait();
    if (event) handle(*event, outcome);
    if (!stopped_) merge_and_announce(outcome);  // We may have been moved to where others are due.
    if (event) {
      if (is_about_us(*event)) silence = net::Duration{0};
      continue;
    }
    if (lacks_samples() && !is_told) {
      base::log_warning("outer: waiting at step {} for samples from the coordinator", position_);
      is_told = true;
    }
    held += kPollInterval;
    if (held == kHeldPatience) announce_all(outcome);
    silence += kPollInterval;
    if (silence >= options_.round_patience) {
      stopped_ = net::Stopped{.reason = "nothing was heard from the swarm in a round",
                              .restart_makes_sense = true};
    }
  }
  if (is_replacing_) {
    throw base::resource_lost(
        fmt::format("fetching the state in force: {}",
                    stopped_ ? stopped_->reason : "stopped before it was complete"),
        kFromCheckpoint);
  }
  if (stopped_ && stopped_->restart_makes_sense && is_last_step()) end_without_others();
}

// Nobody is left to make the last rounds with. What was to be in them is in the local parameters
// alone.
void SwarmOuterLoop::end_without_others() {
  std::string versions;
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    if (fragments_[size_t(f)].in_flight) state_.thaw(f);
    fragments_[size_t(f)].in_flight.reset();
    versions += fmt::format("{}{}", f == 0 ? "" : ", ", state_.version(f));
  }
  base::log_warning(
      "outer: all steps are done, and the others have gone before the last rounds were committed "
      "({}): this node ends with the outer parameters of version {}; a node that finished with "
      "others may have newer ones",
      stopped_->reason, versions);
  stopped_.reset();
}

// The next event, if one comes soon. The time is written down for the round that holds us up.
std::optional<net::MemberEvent> SwarmOuterLoop::wait() {
  const LoopClock::time_point start = LoopClock::now();
  const std::optional<int64_t> fragment = holds_us_up();
  std::optional<net::MemberEvent> event = swarm_.wait(kPollInterval);
  if (fragment) fragments_[size_t(*fragment)].in_flight->times.wait += seconds_since(start);
  return event;
}

bool SwarmOuterLoop::is_due(int64_t fragment) const {
  const auto due = due_fragments(int64_t(position_), options_.config.inner_steps,
                                 state_.fragment_count(), options_.steps_total);
  return std::ranges::find(due, fragment) != due.end() &&
         fragments_[size_t(fragment)].synced_step < position_;
}

// A fragment without whose commit no further step may be made.
std::optional<int64_t> SwarmOuterLoop::holds_us_up() const {
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    const auto& in_flight = fragments_[size_t(f)].in_flight;
    if (!in_flight) continue;
    const uint64_t latest = in_flight->step + uint64_t(options_.config.overlap_steps_max);
    const bool is_due_again = in_flight->step < position_ && is_due(f);
    if (position_ >= latest || is_due_again || is_last_step()) return f;
  }
  return std::nullopt;
}

// What may be merged here, and what is due here.
void SwarmOuterLoop::merge_and_announce(StepOutcome& outcome) {
  if (is_replacing_) return;
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    const auto& stepped = fragments_[size_t(f)].stepped;
    const bool is_time = stepped && position_ >= stepped->merge_from;
    if (stepped && (is_time || is_due(f) || is_last_step())) merge(f, outcome);
    if (state_.has_digest(f) || is_last_step()) tell_applied(f);
  }
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    if (is_due(f) && !fragments_[size_t(f)].in_flight) announce(f);
  }
}

void SwarmOuterLoop::announce_all(StepOutcome& outcome) {
  if (is_replacing_ || !holds_us_up()) return;
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    const FragmentProgress& progress = fragments_[size_t(f)];
    if (progress.in_flight || progress.synced_step >= position_) continue;
    base::log_warning("outer: held up at step {}: fragment {} is said before its turn", position_,
                      f);
    if (progress.stepped) merge(f, outcome);
    announce(f);
  }
}

void SwarmOuterLoop::announce(int64_t fragment) {
  FragmentProgress& progress = fragments_[size_t(fragment)];
  const LoopClock::time_point start = LoopClock::now();
  tell_applied(fragment);
  const bool is_whole = state_.freeze(fragment);
  progress.in_flight = FragmentInFlight{.step = position_,
                                        .tokens = is_whole ? progress.tokens : 0,
                                        .is_damaged = !is_whole,
                                        .made_for = state_.version(fragment) + 1,
                                        .times = {.encode = seconds_since(start)}};
  if (!is_whole) {
    // No weight, so that the others neither wait for us nor are diluted; the result then heals us.
    base::log_error(
        "outer: the parameters of fragment {} are not finite at step {}; "
        "this node's progress since the last round is dropped",
        fragment, position_);
  }
  tell_ready(fragment);
}

void SwarmOuterLoop::tell_ready(int64_t fragment) {
  const FragmentInFlight& in_flight = *fragments_[size_t(fragment)].in_flight;
  swarm_.ready(fragment, in_flight.tokens, in_flight.step);
}

void SwarmOuterLoop::withdraw(int64_t fragment) {
  FragmentProgress& progress = fragments_[size_t(fragment)];
  if (!progress.in_flight) return;
  progress.in_flight.reset();
  swarm_.ready(fragment, -1, position_);
  state_.thaw(fragment);
}

void SwarmOuterLoop::tell_applied(int64_t fragment) {
  bool& must_tell = fragments_[size_t(fragment)].must_tell;
  if (std::exchange(must_tell, false)) swarm_.applied(fragment, state_.state(fragment));
}

void SwarmOuterLoop::merge_all(StepOutcome& outcome) {
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    if (fragments_[size_t(f)].stepped) merge(f, outcome);
  }
}

void SwarmOuterLoop::merge(int64_t fragment, StepOutcome& outcome) {
  FragmentProgress& progress = fragments_[size_t(fragment)];
  RoundReport& report = progress.stepped->report;
  const LoopClock::time_point start = LoopClock::now();
  state_.merge(fragment, merge_rule(progress));
  const double seconds = seconds_since(start);
  report.apply_seconds += seconds;
  report.exposed_seconds += seconds;
  report.applied_step = position_;
  if (!report.contributed) report.begun_step = position_;
  if (report.was_damaged) outcome.state_replaced = true;
  outcome.has_merged = true;
  if (!progress.stepped->is_restored) outcome.rounds.push_back(std::move(report));
  progress.stepped.reset();
}

// Where no step was made since the contribution, nothing is there to be kept beside what the codec
// left out: that is blocking DiLoCo.
Merge SwarmOuterLoop::merge_rule(const FragmentProgress& progress) const {
  const RoundReport& report = progress.stepped->report;
  if (report.was_damaged) return Merge::kReplace;
  if (report.begun_step == position_ || options_.config.merge == "overwrite") {
    return Merge::kOverwrite;
  }
  return options_.config.merge == "lerp" ? Merge::kLerp : Merge::kRebase;
}

std::vector<OuterLoop::InFlight> SwarmOuterLoop::in_flight() const {
  std::vector<InFlight> all;
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    const auto& in_flight = fragments_[size_t(f)].in_flight;
    const auto& stepped = fragments_[size_t(f)].stepped;
    if (stepped && !stepped->report.was_damaged) {
      all.push_back(
          {.fragment = f, .step = stepped->report.begun_step, .merge_from = stepped->merge_from});
    }
    if (in_flight && !in_flight->is_damaged)
      all.push_back({.fragment = f, .step = in_flight->step, .tokens = in_flight->tokens});
  }
  return all;
}

void SwarmOuterLoop::restore_in_flight(const std::vector<InFlight>& in_flight) {
  for (const InFlight& one : in_flight) {
    FragmentProgress& progress = fragments_[size_t(one.fragment)];
    if (one.merge_from) {
      progress.stepped = Stepped{
          .merge_from = *one.merge_from, .is_restored = true, .report = {.begun_step = one.step}};
    } else {
      progress.in_flight = FragmentInFlight{.step = one.step,
                                            .tokens = one.tokens,
                                            .made_for = state_.version(one.fragment) + 1,
                                            .is_restored = true};
    }
  }
}

std::vector<int64_t> SwarmOuterLoop::tokens_since_commit() const {
  std::vector<int64_t> tokens;
  for (const FragmentProgress& progress : fragments_) tokens.push_back(progress.tokens);
  return tokens;
}

void SwarmOuterLoop::restore_tokens_since_commit(std::vector<int64_t> tokens) {
  CHECK(tokens.size() == fragments_.size());
  for (size_t f = 0; f < tokens.size(); ++f) fragments_[f].tokens = tokens[f];
}

std::unique_ptr<OuterLoop> OuterLoop::create(const Options& options, OuterState& state,
                                             net::Swarm& swarm) {
  return std::make_unique<SwarmOuterLoop>(options, state, swarm);
}

}  // namespace outer
