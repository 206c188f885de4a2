#include <algorithm>

#include "base/log.h"
#include "net/member/member_machine.h"
#include "net/probe.h"

namespace net {
namespace {

// Enough for all workers, few enough that a sum that can be made is not behind many checks.
constexpr int64_t kJobsMax = 32;

}  // namespace

MemberMachine::MemberMachine(const MemberOptions& options, FragmentStore& store,
                             std::vector<FragmentState> states, uint64_t committed_step,
                             std::function<void(MemberEvent)> on_event)
    : options_(options),
      run_(run_hash(options.run_name)),
      store_(store),
      on_event_(std::move(on_event)),
      registration_({.coordinator = options.coordinator,
                     .key = options.coordinator_key,
                     .patience = options.coordinator_patience},
                    [this](const auto& place) { return make_hello(place); }),
      fetcher_(run_, {.wants_in_flight_max = options.wants_in_flight_max,
                      .links_per_peer_max = options.links_per_peer_max,
                      .window_bytes_max = options.window_bytes_max}),
      server_(run_, options.node_key, options.gap_share,
              [this](const ChunkName& name) { return answer(name); }),
      outreach_(run_, server_),
      state_sync_(store, fetcher_, std::move(states)),
      rounds_(store, fetcher_,
              {.chunks = options.audit_chunks,
               .secret = options.node_key,
               .patience = options.audit_patience}),
      samples_(options.samples),
      committed_step_(committed_step),
      step_(committed_step),
      log_(options.log) {
  set_places();
}

void MemberMachine::on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                                 Outbox& out) {
  if (is_over_) return;
  if (incoming) {
    server_.on_link_open(link, remote, now);
  } else if (registration_.owns(link)) {
    registration_.on_link_open(link, remote.node, {now, out});
  } else if (fetcher_.owns(link)) {
    fetcher_.on_link_open(link, remote.node, {now, out});
  } else if (outreach_.owns(link)) {
    outreach_.on_link_open(link, remote, {now, out});
  }
}

void MemberMachine::on_link_closed(LinkId link, const std::string& reason, Instant now,
                                   Outbox& out) {
  const Turn turn{now, out};
  if (is_over_) return;
  if (registration_.owns(link)) {
    if (registration_.on_link_closed(link, reason, now)) on_coordinator_lost(turn);
  } else if (fetcher_.owns(link)) {
    fetcher_.on_link_closed(link, reason, turn);
  } else if (outreach_.owns(link)) {
    outreach_.on_link_closed(link, now);
  } else if (server_.owns(link)) {
    server_.on_link_closed(link);
  }
  go_on(turn);
}

void MemberMachine::on_message(LinkId link, const Message& message, Instant now, Outbox& out) {
  const Turn turn{now, out};
  if (is_over_) return;
  if (registration_.owns(link)) {
    registration_.on_heard(link, now);
    const Handled handled = on_control(link, message, turn);
    probe<"the coordinator says what cannot be">(!handled.ok());
    if (!handled.ok() && registration_.drop(link, handled.reason(), turn))
      on_coordinator_lost(turn);
  } else if (fetcher_.owns(link)) {
    if (const auto delivery = fetcher_.on_message(link, message, turn)) {
      on_chunk(*delivery, message.payload, turn);
    }
  } else if (server_.owns(link)) {
    on_wanted(link, message, turn);
  }
  go_on(turn);
}

// From a link of the server's.
void MemberMachine::on_wanted(LinkId link, const Message& message, Turn turn) {
  if (message.type == MessageType::kOffer) return on_offer(link, message, turn);
  if (message.type == MessageType::kInvite && outreach_.owns(link)) {
    const auto invite = decode<Invite>(*message.payload);
    if (invite.ok()) return outreach_.on_invite(link, *invite);
  }
  server_.on_message(link, message, turn);
}

void MemberMachine::on_offer(LinkId link, const Message& message, Turn turn) {
  const NodeId node = server_.release(link);
  const auto offer = decode<Offer>(*message.payload);
  const bool is_taken = offer.ok() && message.run == run_ && !outreach_.owns(link) &&
                        fetcher_.adopt(link, *offer, node, turn);
  if (!is_taken) turn.out.close(link);
}

void MemberMachine::on_drained(LinkId link, Instant now, Outbox& out) {
  if (server_.owns(link)) server_.on_drained(link, {now, out});
}

void MemberMachine::on_tick(Instant now, Outbox& out) {
  const Turn turn{now, out};
  if (is_over_) return;
  if (registration_.on_tick(turn)) on_coordinator_lost(turn);
  if (registration_.is_given_up(turn)) {
    probe<"there is no coordinator any more">();
    return stop(
        {.reason = fmt::format("no coordinator at {} for {} s: {}", options_.coordinator.text(),
                               std::chrono::duration<double>(options_.coordinator_patience).count(),
                               registration_.last_reason())},
        turn);
  }
  if (state_sync_.is_silent_for(options_.fetch_patience, turn)) {
    probe<"nobody gives us the state">();
    return stop({.reason = "nobody gives us the state of the run"}, turn);
  }
  if (registration_.is_heartbeat_due(turn)) tell_heartbeat(turn);
  server_.on_tick(turn);
  rounds_.on_tick(turn);
  go_on(turn);
}

// What may have become possible by what just happened.
void MemberMachine::go_on(Turn turn) {
  if (is_over_) return;
  const MemberRounds::News news = rounds_.take_news();
  if (news.has_new_results) server_.pump(turn);
  for (const auto& [authority, results] : news.complete) {
    tell(MessageType::kDone, authority, encode(Done{results}), turn);
    const Measured measured = fetcher_.measured();
    if (!measured.ways.empty()) tell(MessageType::kMeasured, authority, encode(measured), turn);
  }
  for (const auto& [authority, audited] : news.audited)
    tell(MessageType::kAudited, authority, encode(audited), turn);
  work(turn);
  act(state_sync_.on_nobody_has(fetcher_.take_nobody_has(), turn.now), turn);
  fetcher_.pump(turn);
  outreach_.pump(turn);
}

void MemberMachine::work(Turn turn) {
  while (job_count_ < kJobsMax) {
    auto job = rounds_.next_job();
    probe<"as many jobs are out as may be">(job_count_ == kJobsMax - 1);
    if (!job) break;
    ++job_count_;
    turn.out.start({.work = std::move(job->work),
                    .done = [this, finish = std::move(job->finish)](Instant now, Outbox& out) {
                      on_worked(finish, {now, out});
                    }});
  }
}

void MemberMachine::on_worked(const std::function<void(Turn)>& finish, Turn turn) {
  --job_count_;
  probe<"a job ends when its member has stopped">(is_over_);
  if (is_over_) return;
  finish(turn);
  go_on(turn);
}

// --- Chunks.

void MemberMachine::on_chunk(const Fetcher::Delivery& delivery, const Bytes& payload, Turn turn) {
  if (is_for_catching_up(delivery.name.kind)) {
    act(state_sync_.deliver(delivery, payload, turn), turn);
  } else {
    rounds_.deliver(delivery, payload, turn);
  }
}

Answer MemberMachine::answer(const ChunkName& name) {
  return is_for_catching_up(name.kind) ? state_sync_.answer(name) : rounds_.answer(name);
}

// --- The trainer's commands.

void MemberMachine::ready(int64_t fragment, int64_t weight_tokens, uint64_t step, Instant now,
                          Outbox& out) {
  CHECK(fragment >= 0 && fragment < rounds_.fragment_count(), "fragment {}", fragment);
  probe<"a ready crosses a commit or an announcement">(!is_over_ &&
                                                       !state_sync_.takes_ready(fragment));
  if (is_over_ || !state_sync_.takes_ready(fragment)) return;
  Ready ready{.weight_tokens = weight_tokens, .step = step, .contribution = {}};
  if (weight_tokens >= 0) ready.contribution = store_.contribution_root(fragment);
  rounds_.set_ready(fragment, ready);
  if (is_active_) tell_ready(fragment, {now, out});
  if (weight_tokens < 0) rounds_.withdraw(fragment);
}

void MemberMachine::begin_fetch(Instant now, Outbox& out) {
  if (is_over_) return;
  act(state_sync_.begin_fetch(now), {now, out});
  go_on({now, out});
}

void MemberMachine::synced(std::vector<FragmentState> states, Instant now, Outbox& out) {
  if (is_over_) return;
  act(state_sync_.synced(std::move(states), now), {now, out});
}

void MemberMachine::applied(int64_t fragment, const FragmentState& state, Instant now,
                            Outbox& out) {
  if (is_over_) return;
  auto outcome = state_sync_.applied(fragment, state, now);
  if (is_active_) {
    tell(MessageType::kApplied, {.round = state.version, .fragment = uint32_t(fragment)},
         encode(Applied{state.digest}), {now, out});
  }
  act(std::move(outcome), {now, out});
}

void MemberMachine::progress(uint64_t step, float loss) {
  step_ = step;
  loss_ = loss;
}

void MemberMachine::need_samples(uint64_t count, Instant now, Outbox& out) {
  CHECK(count >= 1 && count <= kSamplesAskedMax, "{} samples", count);
  if (is_over_) return;
  samples_.need(count);
  if (is_active_) tell_samples_needed({now, out});
}

void MemberMachine::leave(const std::string& reason, Instant now, Outbox& out) {
  if (is_over_) return;
  tell(MessageType::kLeave, {}, encode(Leave{reason}), {now, out});
  is_over_ = true;
  registration_.close({now, out});
  fetcher_.close_links({now, out});
  outreach_.call_on({}, self_, {now, out});
  server_.close_links({now, out});
}

// --- Beginnings and ends.

void MemberMachine::act(StateSync::Outcome outcome, Turn turn) {
  if (std::holds_alternative<StateSync::TellSynced>(outcome)) {
    committed_step_ = catch_up_step_;
    tell(MessageType::kSynced, {}, encode(Synced{state_sync_.states()}), turn);
  } else if (auto* const needed = std::get_if<CatchUpNeeded>(&outcome)) {
    rounds_.forget_ready();
    rounds_.forget_made();
    on_event_(std::move(*needed));
  } else if (auto* const fetched = std::get_if<Fetched>(&outcome)) {
    on_event_(std::move(*fetched));
  }
}

// Rounds are committed or opened again by the coordinator that we find next, with what we tell it
// then. The links go too: no answer to a question of the old rounds can come after that.
void MemberMachine::on_coordinator_lost(Turn turn) {
  net::tell(options_.on_incident, {.kind = Incident::Kind::kLost,
                                   .who = "the coordinator",
                                   .reason = registration_.last_reason()});
  is_active_ = false;
  rounds_.hold_complete();
  rounds_.close_all();
  fetcher_.close_links(turn);
}

void MemberMachine::stop(Stopped stopped, Turn turn) {
  is_over_ = true;
  registration_.close(turn);
  fetcher_.close_links(turn);
  outreach_.call_on({}, self_, turn);
  server_.close_links(turn);
  on_event_(std::move(stopped));
}

std::unique_ptr<Member> Member::create(const MemberOptions& options, FragmentStore& store,
                                       std::vector<FragmentState> states, uint64_t committed_step,
                                       std::function<void(MemberEvent)> on_event) {
  return std::make_unique<MemberMachine>(options, store, std::move(states), committed_step,
                                         std::move(on_event));
}

}  // namespace net
