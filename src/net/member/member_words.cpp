// What the coordinator and a member say to each other.
#include <algorithm>

#include "base/log.h"
#include "net/dispatch.h"
#include "net/member/member_machine.h"
#include "net/probe.h"

namespace net {

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

}  // namespace net
