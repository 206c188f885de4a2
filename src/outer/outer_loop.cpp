// The outer loop is a reaction to events: whatever waits, waits in take_part(), and every event
// goes through handle(), in whichever phase it arrives. What a fragment's round has come to at this
// node stands in outer/fragment_progress.h.
//
// The word "position" is the global inner step at which this node stands. A fragment is announced
// at most once per position, and what decides is a step, not a count of rounds, so that rounds that
// were held without us need no bookkeeping.
#include "outer/outer_loop.h"

#include <algorithm>

#include "base/log.h"
#include "outer/fragment_progress.h"

namespace outer {

namespace {

using Clock = std::chrono::steady_clock;

// How often a stop request is looked at while waiting.
constexpr net::Duration kPollInterval = std::chrono::milliseconds(100);
// A fetched state that does not have the digest it should: donors may have moved on in the middle,
// but not so often.
constexpr int64_t kFetchAttemptsMax = 8;

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

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
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
  void merge_and_announce(StepOutcome& outcome);
  void announce_all(StepOutcome& outcome);
  void announce(int64_t fragment);
  void tell_ready(int64_t fragment);
  void withdraw(int64_t fragment);
  void tell_applied(int64_t fragment);
  void merge(int64_t fragment, StepOutcome& outcome);
  void merge_all(StepOutcome& outcome);
  Merge merge_rule(const FragmentProgress& progress) const;
  void move_to(uint64_t step, StepOutcome& outcome);

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
}

// The next event, if one comes soon. The time is written down for the round that holds us up.
std::optional<net::MemberEvent> SwarmOuterLoop::wait() {
  const Clock::time_point start = Clock::now();
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
    if (!stepped) continue;
    if (state_.has_digest(f)) tell_applied(f);
    if (position_ >= stepped->merge_from || is_due(f) || is_last_step()) merge(f, outcome);
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
  const Clock::time_point start = Clock::now();
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
  Stepped& stepped = *fragments_[size_t(fragment)].stepped;
  if (!stepped.is_told) swarm_.applied(fragment, state_.state(fragment));
  stepped.is_told = true;
}

void SwarmOuterLoop::merge_all(StepOutcome& outcome) {
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    if (fragments_[size_t(f)].stepped) merge(f, outcome);
  }
}

void SwarmOuterLoop::merge(int64_t fragment, StepOutcome& outcome) {
  FragmentProgress& progress = fragments_[size_t(fragment)];
  RoundReport& report = progress.stepped->report;
  const Clock::time_point start = Clock::now();
  state_.merge(fragment, merge_rule(progress));
  report.digest = state_.state(fragment).digest;
  tell_applied(fragment);
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

void SwarmOuterLoop::move_to(uint64_t step, StepOutcome& outcome) {
  if (step <= position_) return;
  position_ = step;
  outcome.jump_to_step = step;
}

void SwarmOuterLoop::handle(net::MemberEvent& event, StepOutcome& outcome) {
  std::visit([&](const auto& kind) { on_event(kind, outcome); }, event);
}

// What is in flight stays so: outer minus local parameters are the same after the replacement.
void SwarmOuterLoop::on_event(const net::CatchUpNeeded&, StepOutcome& outcome) {
  if (!is_replacing_) {
    merge_all(outcome);
    bool keep = has_progress_;
    for (int64_t f = 0; keep && f < state_.fragment_count(); ++f) keep = state_.local_is_finite(f);
    base::log_info("outer: fetching the state in force; own progress is {}",
                   keep ? "kept" : "not kept");
    state_.begin_replace(keep);
    for (int64_t f = 0; !keep && f < state_.fragment_count(); ++f) {
      fragments_[size_t(f)].tokens = 0;
      fragments_[size_t(f)].in_flight.reset();
      state_.thaw(f);
    }
    is_replacing_ = true;
    fetch_attempts_ = 0;
  }
  swarm_.begin_fetch();
}

void SwarmOuterLoop::on_event(const net::Fetched& event, StepOutcome& outcome) {
  if (!is_replacing_) return;
  const base::Result<void> verified = state_.end_replace(event.expected);
  if (verified) {
    is_replacing_ = false;
    outcome.state_replaced = true;
    settle_missed();
    swarm_.synced(state_.states());
    return;
  }
  base::log_warning("outer: the fetched state is not the one in force: {}", verified.reason());
  if (++fetch_attempts_ < kFetchAttemptsMax) {
    swarm_.begin_fetch();
  } else {
    stopped_ = net::Stopped{
        .reason = fmt::format("{} fetched states in a row were wrong; the last one: {}",
                              fetch_attempts_, verified.reason()),
        .restart_makes_sense = true};
  }
}

// What was in flight for rounds that are in the state which we have just taken.
void SwarmOuterLoop::settle_missed() {
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    FragmentProgress& progress = fragments_[size_t(f)];
    const auto& in_flight = progress.in_flight;
    if (!in_flight || state_.version(f) < in_flight->made_for) continue;
    if (!state_.settle_frozen(f, in_flight->is_restored)) {
      progress.in_flight->made_for = state_.version(f) + 1;  // It is for the next one.
      continue;
    }
    progress.tokens -= in_flight->tokens;
    progress.synced_step = std::max(progress.synced_step, in_flight->step);
    progress.in_flight.reset();
  }
}

void SwarmOuterLoop::on_event(const net::Started& event, StepOutcome& outcome) {
  outcome.peer = event.peer;
  committed_step_ = event.step;
  // The run is where its last commit was. Steps that we did since are ours, but further than a
  // round away from it there is no round that we could be ready for.
  const OuterConfig& config = options_.config;
  if (position_ > event.step + uint64_t(config.inner_steps + config.overlap_steps_max)) {
    base::log_warning("outer: the run is at step {}, this node was at {}: it goes back", event.step,
                      position_);
    position_ = event.step;
    outcome.jump_to_step = event.step;
    for (int64_t f = 0; f < state_.fragment_count(); ++f) {
      withdraw(f);
      fragments_[size_t(f)].synced_step = std::min(fragments_[size_t(f)].synced_step, event.step);
    }
  }
  outcome.samples_void_below = std::max(outcome.samples_void_below, event.samples_void_below);
  for (net::SamplesGranted& granted : outcome.samples) {
    if (granted.first < event.samples_void_below) granted.count = 0;
  }
  if (event.step > position_) {
    // The state that was fetched is of that step: nothing is left to be synchronised there.
    move_to(event.step, outcome);
    for (int64_t f = 0; f < state_.fragment_count(); ++f) {
      withdraw(f);
      fragments_[size_t(f)].synced_step = event.step;
    }
    return;
  }
  // What we announced before we were an active member (again) may have been dropped.
  for (int64_t f = 0; f < state_.fragment_count(); ++f) {
    if (fragments_[size_t(f)].in_flight) tell_ready(f);
  }
}

void SwarmOuterLoop::on_event(const net::SamplesGranted& event, StepOutcome& outcome) {
  samples_ = std::max(samples_, event.first + event.count);
  if (event.count > 0) outcome.samples.push_back(event);
}

void SwarmOuterLoop::on_event(const net::MembershipChanged& event, StepOutcome& outcome) {
  outcome.memberships.push_back({.epoch = event.epoch, .members = event.members});
}

void SwarmOuterLoop::on_event(const net::StandingChanged& event, StepOutcome& outcome) {
  outcome.standings.push_back({.contributes = event.contributes, .reason = event.reason});
}

void SwarmOuterLoop::on_event(const net::Committed& event, StepOutcome& outcome) {
  FragmentProgress& progress = fragments_[size_t(event.fragment)];
  const uint64_t version = state_.version(event.fragment);
  if (is_replacing_) return;  // What is being fetched contains it, or we shall fetch again.
  if (event.round != version + 1) {
    base::log_warning("outer: round {} of fragment {} does not follow version {}", event.round,
                      event.fragment, version);
    swarm_.applied(event.fragment, state_.state(event.fragment));  // What we have.
    return;
  }
  if (progress.stepped) merge(event.fragment, outcome);
  const Clock::time_point start = Clock::now();
  state_.step(event);
  progress.stepped = Stepped{.report = report_of(event, progress)};
  RoundReport& report = progress.stepped->report;
  report.apply_seconds = seconds_since(start);
  report.exposed_seconds = report.encode_seconds + report.wait_seconds + report.apply_seconds;
  if (report.was_damaged) progress.tokens = 0;
  if (report.contributed) {
    progress.stepped->merge_from = report.begun_step + uint64_t(options_.config.overlap_steps);
    progress.tokens -= progress.in_flight->tokens;
  }
  settle(event);
  progress.synced_step = std::max(progress.synced_step, event.step);
  committed_step_ = std::max(committed_step_, event.step);
  move_to(event.step, outcome);
}

// What becomes of our word for the round. No other is heard before Applied is said.
void SwarmOuterLoop::settle(const net::Committed& event) {
  FragmentProgress& progress = fragments_[size_t(event.fragment)];
  if (!progress.in_flight) return;
  if (event.contributed) {
    progress.synced_step = progress.in_flight->step;
    progress.in_flight.reset();
    return;
  }
  tell_applied(event.fragment);
  if (event.step >= progress.in_flight->step) {
    withdraw(event.fragment);  // The round of this step was held without us.
  } else {
    progress.in_flight->made_for = event.round + 1;
    tell_ready(event.fragment);  // It was an older one, and used up our word for the one to come.
  }
}

RoundReport SwarmOuterLoop::report_of(const net::Committed& event,
                                      const FragmentProgress& progress) {
  const FragmentInFlight in_flight = progress.in_flight.value_or(FragmentInFlight{});
  const bool contributed = event.contributed && progress.in_flight && !in_flight.is_damaged;
  return {.round = event.round,
          .fragment = event.fragment,
          .epoch = event.epoch,
          .step = event.step,
          .members = event.members,
          .weight_tokens = event.weight_tokens,
          .bytes_sent = event.bytes_sent,
          .bytes_received = event.bytes_received,
          .begun_step = in_flight.step,
          .seconds = event.seconds,
          .encode_seconds = in_flight.times.encode,
          .wait_seconds = in_flight.times.wait,
          .contributed = contributed,
          .was_damaged = in_flight.is_damaged,
          .findings = report_findings(event)};
}

RoundFindings SwarmOuterLoop::report_findings(const net::Committed& event) {
  RoundFindings findings = state_.take_findings(event.fragment);
  for (const RoundFindings::Outlier& outlier : findings.outliers) {
    base::log_warning(
        "outer: round {} of fragment {}: what member {} brought is far longer than what the others "
        "did: shortened in {} of the chunks that this node sums, left out of {}",
        event.round, event.fragment, outlier.peer, outlier.shortened_chunks,
        outlier.left_out_chunks);
  }
  return findings;
}

void SwarmOuterLoop::on_event(const net::Stopped& event, StepOutcome&) {
  stopped_ = event;
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
      progress.stepped = Stepped{.merge_from = *one.merge_from,
                                 .is_told = true,
                                 .is_restored = true,
                                 .report = {.begun_step = one.step}};
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

}  // namespace

std::unique_ptr<OuterLoop> OuterLoop::create(const Options& options, OuterState& state,
                                             net::Swarm& swarm) {
  return std::make_unique<SwarmOuterLoop>(options, state, swarm);
}

}  // namespace outer
