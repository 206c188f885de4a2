// What each event of the swarm means for the state, for what is in flight and for the position.
#include <algorithm>

#include "base/log.h"
#include "outer/round_findings.h"
#include "outer/swarm_outer_loop.h"

namespace outer {

namespace {

// A fetched state that does not have the digest it should: donors may have moved on in the middle,
// but not so often.
constexpr int64_t kFetchAttemptsMax = 8;

}  // namespace

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
    for (int64_t f = 0; f < state_.fragment_count(); ++f) tell_applied(f);
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
  const LoopClock::time_point start = LoopClock::now();
  tell_applied(event.fragment);
  state_.step(event);
  progress.stepped = Stepped{.report = report_of(event, progress)};
  progress.must_tell = true;
  RoundReport& report = progress.stepped->report;
  report.digest = state_.digest(event.fragment);
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
          .plan = event.plan,
          .estimated_seconds = event.estimated_seconds,
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
  const auto parts = int64_t(findings.influences.size());
  for (const RoundFindings::Influence& influence : findings.influences) {
    if (!is_remarkable(influence, parts)) continue;
    base::log_warning(
        "outer: round {} of fragment {}: what member {} brought is {:.0f} % of the mean, with "
        "{:.0f} % of the tokens, and its cosine to the outer momentum is {:.2f} (in the {} chunks "
        "that this node sums)",
        event.round, event.fragment, influence.peer, 100 * influence.share,
        100 * influence.weight_share, influence.cosine, findings.summed_chunks);
  }
  return findings;
}

void SwarmOuterLoop::on_event(const net::Stopped& event, StepOutcome&) {
  stopped_ = event;
}

}  // namespace outer
