// Who is a member, and what is known of it. When the run starts is in net/coordinator/beginning.h,
// rounds are in net/coordinator/round_keeper.h, their plans in net/coordinator/planner.h, the state
// in net/coordinator/state_in_force.h, the door in net/coordinator/admission.h, who contributes in
// net/coordinator/standing.h, and who may bring a newer state in net/coordinator/newer_state.h.
#include <algorithm>
#include <random>

#include "base/log.h"
#include "net/coordinator/coordinator_machine.h"
#include "net/coordinator/newer_state.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;

CoordinatorOptions with_identity(CoordinatorOptions options) {
  if (options.identity == 0) options.identity = std::random_device{}() | uint64_t{1} << 32;
  return options;
}

}  // namespace

CoordinatorMachine::CoordinatorMachine(const CoordinatorOptions& options)
    : options_(with_identity(options)),
      speaker_(run_hash(options.run_name), options.term),
      admission_(options_),
      reachability_(speaker_.run()),
      announcer_(options_, speaker_),
      in_force_(options.fragment_count, roster_),
      standing_(options_, roster_, in_force_, reachability_, conduct_, speaker_),
      electors_(options_, roster_),
      beginning_(options_, roster_, in_force_, electors_),
      rounds_(options_, roster_, in_force_.states(), speaker_, conduct_, electors_),
      log_(options.log) {
  speaker_.raise_term(log_.term + 1);
  CHECK(int64_t(options.chunk_counts.size()) == options.fragment_count, "{} chunk counts for {}",
        options.chunk_counts.size(), options.fragment_count);
}

void CoordinatorMachine::on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                                      Outbox& out) {
  if (incoming) {
    admission_.on_link_open(link, remote, now);
  } else if (announcer_.owns(link)) {
    announcer_.on_link_open(link, {now, out});
    give_way({now, out});
  } else if (reachability_.owns(link)) {
    reachability_.on_link_open(link, remote.node, {now, out});
  }
}

void CoordinatorMachine::on_link_closed(LinkId link, const std::string& reason, Instant now,
                                        Outbox& out) {
  const Turn turn{now, out};
  admission_.on_link_closed(link);
  if (announcer_.owns(link)) {
    announcer_.on_link_closed();
  } else if (reachability_.owns(link)) {
    reachability_.on_link_closed(link, reason, turn);
  } else if (const MemberRecord* const member = roster_.find_link(link)) {
    lose(member->peer, reason, turn);
  }
  review(turn);
}

void CoordinatorMachine::on_message(LinkId link, const Message& message, Instant now, Outbox& out) {
  const Turn turn{now, out};
  if (admission_.owns(link) && message.type == MessageType::kRedirect) {
    hear_of_run(link, message, turn);
  } else if (admission_.owns(link) && message.type == MessageType::kLeave) {
    hear_of_end(link, message, turn);
  } else if (admission_.owns(link)) {
    if (const auto verdict = admission_.on_message(link, message, roster_, now)) {
      follow(*verdict, turn);
    }
  } else if (reachability_.owns(link)) {
    reachability_.on_message(link, message, turn);
  } else if (MemberRecord* const member = roster_.find_link(link)) {
    const PeerId peer = member->peer;
    member->heard_at = now;
    member->is_fenced = true;
    member->known_epoch = std::max(member->known_epoch, message.authority.epoch);
    const auto handled = on_member(*member, message, turn);
    probe<"a member says what cannot be">(!handled.ok());
    if (!handled.ok()) lose(peer, handled.reason(), turn);
  }
  review(turn);
}

void CoordinatorMachine::on_tick(Instant now, Outbox& out) {
  const Turn turn{now, out};
  for (const auto& verdict : admission_.on_tick(roster_, turn)) follow(verdict, turn);
  reachability_.on_tick(turn);
  announcer_.on_tick(announced(), is_run_done(), turn);
  tell_changed_keys(turn);
  for (const PeerId peer : roster_.peers()) {
    const MemberRecord& member = *roster_.find(peer);
    const Instant heard_at = std::max(member.heard_at, member.welcomed_at);
    if (!member.is_welcome || !turn.is_due(heard_at + options_.dead_after)) continue;
    probe<"a member is silent for too long">();
    lose(peer,
         fmt::format("silent for {:.1f} s", std::chrono::duration<double>(now - heard_at).count()),
         turn);
  }
  stand_by(turn);
  review(turn);
  watch_quorum(turn);
  finish_if_done(turn);
}

// --- Admission.

void CoordinatorMachine::follow(const Admission::Verdict& verdict, Turn turn) {
  if (verdict.rejected) return reject(verdict.link, verdict.who, *verdict.rejected, turn);
  admit(*verdict.admitted, turn);
}

void CoordinatorMachine::reject(LinkId link, const std::string& who, const Reject& reject,
                                Turn turn) {
  base::log_warning("rejected {}: {}", who, reject.reason);
  tell(options_.on_incident,
       {.kind = Incident::Kind::kRejected, .who = who, .reason = reject.reason});
  speaker_.send(link, MessageType::kReject, encode(reject), turn);
  turn.out.close(link);
}

void CoordinatorMachine::admit(const Admission::Applicant& applicant, Turn turn) {
  tell_changed_keys(turn);  // Before the others hear of it, and it of them.
  const Hello& hello = applicant.hello;
  if (const MemberRecord* const old = roster_.find_node(hello.node_key)) {
    probe<"a node takes its own place">();
    lose(old->peer, fmt::format("it registered again from {}", applicant.remote.text()), turn);
  }
  MemberRecord record{.link = applicant.link, .node_key = hello.node_key, .name = hello.node_name};
  record.remote = applicant.remote;
  record.data = hello.listen;
  if (record.data.host.empty()) record.data.host = applicant.remote.host;
  record.states = hello.states;
  record.ready.resize(size_t(options_.fragment_count));
  record.step = hello.step;
  if (hello.remembers) {
    record.last_term = hello.last_term;
    record.last_epoch = hello.last_epoch;
    record.last_member_count = hello.last_member_count;
  }
  record.term = applicant.term;
  record.samples = hello.samples;
  record.came_at = record.heartbeat_at = record.progress_at = turn.now;
  record.heard_at = applicant.came_at;
  record.list_term = hello.last_term;
  record.list_epoch = hello.last_epoch;
  record.electorates = hello.last_electorates;
  record.remembers = hello.remembers;
  record.coordinator = hello.coordinator;
  record.is_home = hello.is_home;
  record.was_reachable = hello.was_reachable;
  record.held = hello.held;
  if (is_started_ && options_.fail_over && electors_.is_deposed_by(record, speaker_))
    step_down("another coordinator has taken the run over", turn);
  electors_.came_back(record.node_key);
  const bool is_split = raise_term(applicant);
  speaker_.raise_epoch(hello.last_epoch);
  MemberRecord* const member = roster_.add(std::move(record), rounds_.numbers());
  if (member == nullptr) {  // All numbers stand in open rounds. It will dial again.
    turn.out.close(applicant.link);
    return;
  }
  if (!is_started_) beginning_.came(*member, turn.now);
  const bool is_welcome = is_started_ || beginning_.may_be_welcome(*member);
  is_welcome ? welcome(*member, turn) : stand_by(*member, turn);
  probe<"a member comes from a coordinator with a higher term">(is_split);
  if (is_split) {
    standing_.notify(
        *member,
        fmt::format("it comes from another coordinator of this run, which was started later "
                    "(term {}): two coordinators split a run in two. Stop one",
                    applicant.term),
        turn);
  }
  if (is_started_) receive_state_of(*member, turn);
}

void CoordinatorMachine::welcome(MemberRecord& member, Turn turn) {
  member.is_welcome = true;
  member.welcomed_at = turn.now;
  base::log_info("{} registered from {} as peer {} with data address {}", member.name,
                 member.remote.text(), member.peer, member.data.text());
  const Welcome welcome{
      .peer = member.peer,
      .heartbeat_interval_ms = uint32_t(options_.heartbeat_interval / milliseconds(1)),
      .dead_after_ms = uint32_t(options_.dead_after / milliseconds(1)),
      .coordinator = options_.identity};
  speaker_.send(member.link, MessageType::kWelcome, encode(welcome), turn);
  tell_keys(member, turn);
  if (member.node_key == options_.identity && !member.was_reachable) {
    reachability_.take_word(member.peer, member.node_key, member.data, false);
    return;
  }
  reachability_.watch(member.peer, member.node_key, member.data, turn);
  if (!member.was_reachable) reachability_.presume_unreachable(member.peer);
}

// Before the start this is the successor of whoever gave out that term. After it, a member that
// knows a higher one was with another coordinator meanwhile: true.
bool CoordinatorMachine::raise_term(const Admission::Applicant& applicant) {
  const uint64_t theirs = applicant.hello.coordinator;
  const bool is_another = theirs != 0 && theirs != options_.identity;
  const bool is_below =
      applicant.term < speaker_.term() || (applicant.term == speaker_.term() && !is_another);
  if (is_started_ && is_below) return false;
  speaker_.raise_term(applicant.term + 1);
  return is_started_;
}

void CoordinatorMachine::receive_state_of(MemberRecord& member, Turn turn) {
  member.standing = Standing::kCatchingUp;
  switch (judge_newcomer(member, in_force_, options_.adopt_newer)) {
    case Newcomer::kTakesOurs:
      return;
    case Newcomer::kIsRight:
      return put_in_force(member, turn);
    case Newcomer::kWaits:
      member.standing = Standing::kWaiting;
  }
}

void CoordinatorMachine::judge_newer_states(Turn turn) {
  const WaitingVerdict verdict = judge_waiting(roster_, in_force_, options_.start_grace, turn);
  probe<"who waited with a newer state had the run's">(verdict.right != nullptr);
  if (verdict.right) return put_in_force(*verdict.right, turn);
  for (const PeerId peer : verdict.turned_away) {
    const MemberRecord& member = *roster_.find(peer);
    probe<"a newer state is turned away">();
    reject(member, refusal_of_newer_state(member, in_force_), turn);
    forget(peer, turn);
  }
}

void CoordinatorMachine::put_in_force(const MemberRecord& member, Turn turn) {
  for (size_t fragment = 0; fragment < in_force_.states().size(); ++fragment) {
    FragmentState& state = in_force_.states()[fragment];
    if (member.states[fragment].version == kNoVersion) continue;
    if (member.states[fragment].version <= state.version) continue;
    probe<"a newer state replaces the one in force">();
    base::log_warning("version {} of fragment {}, which {} brings, is in force now, after {}",
                      member.states[fragment].version, fragment, member.name, state.version);
    rounds_.abort(int64_t(fragment), "a newer state has come", turn);
    state = member.states[fragment];
  }
  rounds_.set_committed_step(std::max(rounds_.committed_step(), member.step));
  samples_.adopt(member.samples);
  for (auto& [peer, waiting] : roster_.all()) {
    if (waiting.standing == Standing::kWaiting) waiting.standing = Standing::kCatchingUp;
  }
}

CoordinatorReport CoordinatorMachine::report() const {
  CoordinatorReport report;
  report.epoch = speaker_.epoch();
  for (const auto& [peer, member] : roster_.all()) {
    report.members.push_back({peer, member.name, member.is_active(), member.step, member.loss});
  }
  report.states = in_force_.states();
  report.samples = samples_.count();
  report.rounds_committed = rounds_.committed_count();
  report.members_joined = joined_count_;
  report.members_lost = lost_count_;
  report.finished = is_finished_;
  return report;
}

std::unique_ptr<Coordinator> Coordinator::create(const CoordinatorOptions& options) {
  return std::make_unique<CoordinatorMachine>(options);
}

}  // namespace net
