// The member as a whole: it hands every event to the part that it concerns and lets all of them go
// on after each call. The parts: net/member/registration.h (is there a coordinator?),
// net/member/state_sync.h (do we have the state in force?), net/member/member_rounds.h (which
// rounds are open?), and net/exchange/fetcher.h and net/exchange/server.h, which move chunks for
// the two before.
#include "net/member.h"

#include <algorithm>

#include "base/log.h"
#include "net/dispatch.h"
#include "net/exchange/fetcher.h"
#include "net/exchange/outreach.h"
#include "net/exchange/server.h"
#include "net/member/member_rounds.h"
#include "net/member/registration.h"
#include "net/member/sample_request.h"
#include "net/member/state_sync.h"
#include "net/probe.h"

namespace net {
namespace {

// Enough for all workers, few enough that a sum that can be made is not behind many checks.
constexpr int64_t kJobsMax = 32;

class MemberMachine : public Member {
 public:
  MemberMachine(const MemberOptions& options, FragmentStore& store,
                std::vector<FragmentState> states, uint64_t committed_step,
                std::function<void(MemberEvent)> on_event);

  void on_start(Instant now, Outbox& out) override { registration_.start({now, out}); }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                    Outbox& out) override;
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override;
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override;
  void on_drained(LinkId link, Instant now, Outbox& out) override;
  void on_tick(Instant now, Outbox& out) override;

  void ready(int64_t fragment, int64_t weight_tokens, uint64_t step, Instant now,
             Outbox& out) override;
  void begin_fetch(Instant now, Outbox& out) override;
  void synced(std::vector<FragmentState> states, Instant now, Outbox& out) override;
  void applied(int64_t fragment, const FragmentState& state, Instant now, Outbox& out) override;
  void progress(uint64_t step, float loss) override;
  void need_samples(uint64_t count, Instant now, Outbox& out) override;
  void leave(const std::string& reason, Instant now, Outbox& out) override;
  std::vector<Redirect> followed() const override;

 private:
  // A failure: the coordinator's word cannot be, so its link is closed and we register anew.
  using Handled = base::Result<void>;

  // The coordinator's words.
  Handled on_control(LinkId link, const Message& message, Turn turn);
  Handled on_welcome(LinkId link, const Welcome& welcome, uint32_t term, Turn turn);
  Handled on_catch_up(const CatchUp& catch_up, Turn turn);
  Handled on_start_message(const Start& start, Turn turn);
  Handled on_samples(const Samples& samples);
  Handled on_membership(const Membership& membership, const Authority& authority);
  Handled on_keys(const Keys& keys);
  Handled on_notice(const Notice& notice);
  Handled on_open(const Open& open, const Authority& authority, Turn turn);
  Handled on_commit(const Commit& commit, const Authority& authority, Turn turn);

  void on_wanted(LinkId link, const Message& message, Turn turn);
  void on_offer(LinkId link, const Message& message, Turn turn);
  void on_chunk(const Fetcher::Delivery& delivery, const Bytes& payload, Turn turn);
  Answer answer(const ChunkName& name);

  void act(StateSync::Outcome outcome, Turn turn);
  void go_on(Turn turn);
  void work(Turn turn);
  void on_worked(const std::function<void(Turn)>& finish, Turn turn);
  void on_coordinator_lost(Turn turn);
  void stop(Stopped stopped, Turn turn);

  void keep(RunLog log);
  void set_places();
  Registration::Place own_place() const;
  std::string own_host(const Registration::Place& place) const;
  Message make_hello(const Registration::Place& place);
  void tell(MessageType type, const Authority& authority, Bytes payload, Turn turn);
  void tell_ready(int64_t fragment, Turn turn);
  void tell_samples_needed(Turn turn);
  void tell_heartbeat(Turn turn);
  Authority round_after(int64_t fragment) const;

  const MemberOptions options_;
  const uint64_t run_;
  FragmentStore& store_;
  const std::function<void(MemberEvent)> on_event_;
  Registration registration_;
  Fetcher fetcher_;
  Server server_;
  Outreach outreach_;
  StateSync state_sync_;
  MemberRounds rounds_;
  SampleRequest samples_;
  PeerId self_ = kNobody;
  uint64_t epoch_ = 0;  // Of this coordinator.
  bool is_active_ = false;
  bool is_over_ = false;
  uint64_t committed_step_;
  uint64_t catch_up_step_ = 0;  // That of the state which we are told to have.
  uint64_t step_ = 0;
  float loss_ = 0;
  int64_t job_count_ = 0;  // That are out.
  RunLog log_;
  bool remembers_ = false;  // We were in its list since we were started.
};

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

// --- The coordinator's words.

MemberMachine::Handled MemberMachine::on_control(LinkId link, const Message& message, Turn turn) {
  const Authority& authority = message.authority;
  const bool is_ours = message.run == run_ || message.type == MessageType::kReject;
  if (!is_ours) return base::Failure{"it belongs to another run"};
  if (authority.fragment >= rounds_.fragment_count())
    return base::Failure{"a fragment that does not exist"};
  const bool may_come_first =
      message.type == MessageType::kWelcome || message.type == MessageType::kReject ||
      message.type == MessageType::kRedirect || message.type == MessageType::kNotice ||
      message.type == MessageType::kStandBy;
  if (!registration_.link() && !may_come_first) return base::Failure{"it did not welcome us"};
  if (registration_.link() && authority.term > log_.term) {
    RunLog log = log_;
    log.term = authority.term;
    keep(std::move(log));
  }
  switch (message.type) {
    case MessageType::kWelcome:
      return dispatch<Welcome>(message, [&](const auto& welcome) {
        return on_welcome(link, welcome, authority.term, turn);
      });
    case MessageType::kReject:
      return dispatch<Reject>(message, [&](const auto& reject) {
        stop({.reason = reject.reason,
              .restart_makes_sense = reject.restart_makes_sense,
              .shared_config = reject.shared_config},
             turn);
        return Handled{};
      });
    case MessageType::kRedirect:
      return dispatch<Redirect>(message, [&](const auto& redirect) {
        registration_.look_at({.endpoint = redirect.coordinator, .node_key = redirect.node_key},
                              turn.now);
        return Handled{};
      });
    case MessageType::kStandBy:
      return dispatch<StandBy>(message, [&](const auto& stand_by) {
        if (!registration_.link()) registration_.on_stand_by(link, stand_by, turn);
        return Handled{};
      });
    case MessageType::kCatchUp:
      return dispatch<CatchUp>(message, [&](const auto& to) { return on_catch_up(to, turn); });
    case MessageType::kStart:
      return dispatch<Start>(message,
                             [&](const auto& start) { return on_start_message(start, turn); });
    case MessageType::kSamples:
      return dispatch<Samples>(message, [&](const auto& s) { return on_samples(s); });
    case MessageType::kKeys:
      return dispatch<Keys>(message, [&](const auto& keys) { return on_keys(keys); });
    case MessageType::kMembership:
      return dispatch<Membership>(message,
                                  [&](const auto& m) { return on_membership(m, authority); });
    case MessageType::kVisits:
      return dispatch<Visits>(message, [&](const auto& visits) {
        outreach_.call_on(visits.peers, self_, turn);
        return Handled{};
      });
    case MessageType::kOpen:
      return dispatch<Open>(message,
                            [&](const auto& open) { return on_open(open, authority, turn); });
    case MessageType::kReown:
      return dispatch<Reown>(message, [&](const auto& reown) {
        const Handled handled = rounds_.on_reown(reown, authority);
        server_.pump(turn);
        return handled;
      });
    case MessageType::kCommit:
      return dispatch<Commit>(message,
                              [&](const auto& c) { return on_commit(c, authority, turn); });
    case MessageType::kAbort:
      rounds_.on_abort(authority);
      return {};
    case MessageType::kAudit:
      return dispatch<AuditOrder>(message, [&](const auto&) {
        rounds_.on_audit(authority, turn.now);
        return Handled{};
      });
    case MessageType::kHeartbeatReply:
      return {};
    case MessageType::kNotice:
      return dispatch<Notice>(message, [&](const auto& notice) { return on_notice(notice); });
    default:
      return base::Failure{fmt::format("message {} was not expected", int(message.type))};
  }
}

// We never go back to a coordinator that came before one that we have followed: what we told that
// one stands. Of two with one term we stay with ours. (An honest one has a term above that of the
// Hello before it welcomes anybody.)
MemberMachine::Handled MemberMachine::on_welcome(LinkId link, const Welcome& welcome, uint32_t term,
                                                 Turn turn) {
  const bool is_another = log_.coordinator != welcome.coordinator && log_.coordinator != 0;
  const bool is_older = term < log_.term || (term == log_.term && is_another);
  if (is_older) return base::Failure{"another coordinator has taken the run over"};
  RunLog log = log_;
  log.term = term;
  log.coordinator = welcome.coordinator;
  keep(std::move(log));
  epoch_ = 0;
  self_ = welcome.peer;
  fetcher_.set_self(self_);
  server_.set_self(self_);
  outreach_.call_on({}, self_, turn);
  registration_.on_welcome(link, welcome, turn);
  return {};
}

// We are not active: the open rounds go on without us.
MemberMachine::Handled MemberMachine::on_catch_up(const CatchUp& catch_up, Turn turn) {
  is_active_ = false;
  catch_up_step_ = catch_up.step;
  rounds_.close_all();
  auto outcome = state_sync_.on_catch_up(catch_up, self_, turn.now);
  if (!outcome.ok()) return base::Failure{outcome.reason()};
  act(std::move(*outcome), turn);
  return {};
}

MemberMachine::Handled MemberMachine::on_start_message(const Start& start, Turn turn) {
  if (!state_sync_.is_settled()) return base::Failure{"it started us before we had the state"};
  is_active_ = true;
  committed_step_ = start.step;
  state_sync_.on_started();
  rounds_.forget_held();
  on_event_(
      Started{.peer = self_, .step = start.step, .samples_void_below = start.samples_void_below});
  for (int64_t fragment = 0; fragment < rounds_.fragment_count(); ++fragment) {
    if (rounds_.ready(fragment)) tell_ready(fragment, turn);
  }
  tell_samples_needed(turn);
  return {};
}

MemberMachine::Handled MemberMachine::on_samples(const Samples& samples) {
  const auto granted = samples_.on_samples(samples);
  if (!granted.ok()) return base::Failure{granted.reason()};
  on_event_(*granted);
  return {};
}

MemberMachine::Handled MemberMachine::on_membership(const Membership& membership,
                                                    const Authority& authority) {
  epoch_ = authority.epoch;
  remembers_ = true;
  RunLog log = log_;
  log.list_term = authority.term;
  log.epoch = epoch_;
  log.list = membership;
  // Voters that are gone may be where the others are, whom we shall have to find.
  for (const Seat& seat : log_.list.members) {
    const bool is_here = std::ranges::find(membership.members, seat.node_key, &Seat::node_key) !=
                         membership.members.end();
    const bool votes = std::ranges::any_of(membership.electorates, [&](const Electorate& one) {
      return std::ranges::find(one.voters, seat.node_key) != one.voters.end();
    });
    if (!is_here && votes) log.list.members.push_back(seat);
  }
  keep(std::move(log));
  std::vector<PeerId> members;
  for (const Seat& seat : membership.members) members.push_back(seat.peer);
  on_event_(MembershipChanged{.epoch = epoch_, .members = std::move(members)});
  return {};
}

MemberMachine::Handled MemberMachine::on_keys(const Keys& keys) {
  if (!options_.allowed || !options_.coordinator_key)
    return base::Failure{"it has a list of keys, and we have the run's secret"};
  std::vector<NodeId> allowed = keys.allowed;
  if (std::ranges::find(allowed, *options_.coordinator_key) == allowed.end())
    allowed.push_back(*options_.coordinator_key);
  options_.allowed->set(allowed);
  return {};
}

MemberMachine::Handled MemberMachine::on_notice(const Notice& notice) {
  base::log_warning("the coordinator says: {}", notice.reason);
  on_event_(StandingChanged{.contributes = notice.contributes, .reason = notice.reason});
  return {};
}

MemberMachine::Handled MemberMachine::on_open(const Open& open, const Authority& authority,
                                              Turn turn) {
  const int64_t fragment = authority.fragment;
  if (!is_active_ || authority.round != round_after(fragment).round) {
    return base::Failure{fmt::format("it opened round {} of fragment {}, which we cannot make",
                                     authority.round, fragment)};
  }
  const Handled opened =
      rounds_.on_open({.self = self_, .authority = authority, .open = open, .opened_at = turn.now});
  server_.pump(turn);
  return opened;
}

MemberMachine::Handled MemberMachine::on_commit(const Commit& commit, const Authority& authority,
                                                Turn turn) {
  if (!state_sync_.is_settled() || authority.round != round_after(authority.fragment).round)
    return base::Failure{"it committed a round when our state is being changed"};
  auto committed = rounds_.on_commit(commit, authority, turn.now);
  if (!committed.ok()) return base::Failure{committed.reason()};
  state_sync_.on_committed(authority.fragment, authority.round);
  committed_step_ = std::max(committed_step_, commit.step);
  on_event_(std::move(*committed));
  return {};
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

// --- What we tell the coordinator.

void MemberMachine::tell(MessageType type, const Authority& authority, Bytes payload, Turn turn) {
  const auto link = registration_.link();
  probe<"something is to be told and there is no coordinator">(!link);
  if (!link) return;
  Message message{.type = type, .run = run_, .source = self_, .authority = authority};
  message.authority.epoch = epoch_;
  message.payload = std::move(payload);
  turn.out.send(*link, std::move(message));
}

void MemberMachine::keep(RunLog log) {
  if (log == log_) return;
  log_ = std::move(log);
  if (options_.keep_log) options_.keep_log(log_);
  set_places();
}

// Any member may be the next coordinator. After a start the others come first: they may be in the
// middle of the run. And this process may be where the run begins without knowing it, behind an
// address by which it cannot reach itself: then it hears so from those who come.
void MemberMachine::set_places() {
  std::vector<Registration::Place> places, own;
  if (log_.list.electorates.empty()) {  // Of a run that fails over, if we have a place of our own.
    if (!options_.own.empty()) registration_.set_places({own_place()});
    return;
  }
  for (const Seat& seat : log_.list.members) {
    const bool is_us = seat.node_key == options_.node_key;
    if (is_us && !options_.own.empty()) {
      (remembers_ ? places : own).push_back(own_place());
    } else if (!is_us && seat.is_reachable) {
      places.push_back({.endpoint = seat.data, .node_key = seat.node_key});
    }
  }
  places.insert(places.end(), own.begin(), own.end());
  // Members of earlier lists, last: who was cut off with few others has only those in his list.
  for (const Registration::Place& place : registration_.places()) {
    const bool is_known =
        std::ranges::find(places, place.endpoint, &Registration::Place::endpoint) != places.end();
    if (!is_known && int64_t(places.size()) < kMembersMax) places.push_back(place);
  }
  registration_.set_places(std::move(places));
}

// The process has one link to itself, so one place.
Registration::Place MemberMachine::own_place() const {
  const auto& own = options_.own;
  const bool is_home = std::ranges::find(own, options_.coordinator) != own.end();
  return {.endpoint = is_home ? options_.coordinator : own.front(), .node_key = options_.node_key};
}

// The coordinator in our own process does not see where we come from. Others have, or reach us
// where they reach it.
std::string MemberMachine::own_host(const Registration::Place& place) const {
  for (const Seat& seat : log_.list.members) {
    if (seat.node_key == options_.node_key) return seat.data.host;
  }
  return registration_.is_home(place) ? options_.coordinator.host : "";
}

std::vector<Redirect> MemberMachine::followed() const {
  if (!registration_.link()) return {};
  std::vector<Redirect> places;
  for (const Seat& seat : log_.list.members) {
    if (seat.node_key == log_.coordinator && seat.data != registration_.endpoint())
      places.push_back({.coordinator = seat.data, .node_key = seat.node_key});
  }
  places.push_back({.coordinator = registration_.endpoint(), .node_key = log_.coordinator});
  return places;
}

Message MemberMachine::make_hello(const Registration::Place& place) {
  Hello hello;
  hello.protocol = kProtocolVersion;
  hello.node_key = options_.node_key;
  hello.node_name = options_.node_name;
  hello.config = options_.config;
  hello.listen = options_.advertise;
  hello.step = committed_step_;
  hello.samples = samples_.heard();
  hello.states = state_sync_.states();
  hello.last_term = log_.list_term;
  hello.last_epoch = log_.epoch;
  hello.last_member_count = uint32_t(log_.list.members.size());
  hello.last_electorates = log_.list.electorates;
  hello.remembers = remembers_;
  hello.coordinator = log_.coordinator;
  hello.is_home = registration_.is_home(place);
  hello.was_reachable = std::ranges::none_of(log_.list.members, [&](const Seat& seat) {
    return seat.node_key == options_.node_key && !seat.is_reachable;
  });
  if (hello.listen.host.empty() &&
      std::ranges::find(options_.own, place.endpoint) != options_.own.end())
    hello.listen.host = own_host(place);
  hello.held = rounds_.held();
  return {.type = MessageType::kHello,
          .run = run_,
          .source = kNobody,
          .authority = {.term = log_.term},
          .payload = encode(hello)};
}

void MemberMachine::tell_ready(int64_t fragment, Turn turn) {
  tell(MessageType::kReady, round_after(fragment), encode(*rounds_.ready(fragment)), turn);
}

void MemberMachine::tell_samples_needed(Turn turn) {
  if (const auto need = samples_.open()) tell(MessageType::kNeedSamples, {}, encode(*need), turn);
}

void MemberMachine::tell_heartbeat(Turn turn) {
  const Fetcher::Debts debts = fetcher_.take_debts();
  const Heartbeat heartbeat{.step = step_,
                            .loss = loss_,
                            .progress = rounds_.sum_count() + uint64_t(fetcher_.delivered_count()),
                            .owes_contribution = debts.contribution,
                            .owes_result = debts.result,
                            .silent = debts.silent,
                            .unreachable = debts.unreachable,
                            .lacks = uint32_t(fetcher_.lacking_count())};
  tell(MessageType::kHeartbeat, {}, encode(heartbeat), turn);
}

Authority MemberMachine::round_after(int64_t fragment) const {
  return {.round = state_sync_.states()[size_t(fragment)].version + 1,
          .fragment = uint32_t(fragment)};
}

}  // namespace

std::unique_ptr<Member> Member::create(const MemberOptions& options, FragmentStore& store,
                                       std::vector<FragmentState> states, uint64_t committed_step,
                                       std::function<void(MemberEvent)> on_event) {
  return std::make_unique<MemberMachine>(options, store, std::move(states), committed_step,
                                         std::move(on_event));
}

}  // namespace net
