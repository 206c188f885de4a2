// Who is a member, and what is known of it. When the run starts is in net/coordinator/beginning.h,
// rounds are in net/coordinator/round_keeper.h, their plans in net/coordinator/planner.h, the state
// in net/coordinator/state_in_force.h, the door in net/coordinator/admission.h, who contributes in
// net/coordinator/standing.h, and who may bring a newer state in net/coordinator/newer_state.h.
//
// Every event is taken in first, then review() draws all conclusions from what is known. So it does
// not matter by which of several events a condition came true.
#include "net/coordinator.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <random>

#include "base/log.h"
#include "net/coordinator/admission.h"
#include "net/coordinator/announcer.h"
#include "net/coordinator/beginning.h"
#include "net/coordinator/conduct.h"
#include "net/coordinator/electors.h"
#include "net/coordinator/newer_state.h"
#include "net/coordinator/reachability.h"
#include "net/coordinator/round_keeper.h"
#include "net/coordinator/samples.h"
#include "net/coordinator/standing.h"
#include "net/coordinator/state_in_force.h"
#include "net/coordinator/visits.h"
#include "net/dispatch.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;

// For who is nearly in step, beside the time that he takes.
constexpr Duration kHeldMin = std::chrono::seconds(1);
// So many times longer is the last of them.
constexpr int kHeldCountMax = 3;
// Commits of each fragment that somebody who lacks little may miss.
constexpr int64_t kOutrunAfter = 4;
// Whoever is removed from the list is out within a second, everywhere.
constexpr Duration kKeysLookedAtEvery = milliseconds(250);

CoordinatorOptions with_identity(CoordinatorOptions options) {
  if (options.identity == 0) options.identity = std::random_device{}() | uint64_t{1} << 32;
  return options;
}

class CoordinatorMachine : public Coordinator {
 public:
  explicit CoordinatorMachine(const CoordinatorOptions& options);

  void on_start(Instant now, Outbox&) override { beginning_.on_start(now); }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                    Outbox& out) override;
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override;
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override;
  void on_drained(LinkId, Instant, Outbox&) override {}
  void on_tick(Instant now, Outbox& out) override;
  CoordinatorReport report() const override;
  bool is_coordinating() const override {
    return std::ranges::any_of(roster_.all(),
                               [](const auto& one) { return one.second.is_welcome; });
  }
  void redirect(const std::vector<Redirect>& places, Instant now, Outbox& out) override {
    if (!is_started_) send_away(places, {now, out});
  }
  void retire(Instant now, Outbox& out) override {
    is_retiring_ = true;
    if (!is_started_) step_down("its node stops", {now, out});
    review({now, out});
  }

 private:
  // Admission.
  void follow(const Admission::Verdict& verdict, Turn turn);
  void reject(LinkId link, const std::string& who, const Reject& reject, Turn turn);
  void reject(const MemberRecord& member, const Reject& reject, Turn turn) {
    this->reject(member.link, fmt::format("{} ({})", member.name, member.remote.text()), reject,
                 turn);
  }
  void admit(const Admission::Applicant& applicant, Turn turn);
  void welcome(MemberRecord& member, Turn turn);
  bool raise_term(const Admission::Applicant& applicant);
  void receive_state_of(MemberRecord& member, Turn turn);
  void judge_newer_states(Turn turn);
  void put_in_force(const MemberRecord& member, Turn turn);

  // Life of a member.
  base::Result<void> on_member(MemberRecord& member, const Message& message, Turn turn);
  void on_heartbeat(MemberRecord& member, const Heartbeat& heartbeat, Turn turn);
  base::Result<void> on_synced(MemberRecord& member, Synced synced, Instant now);
  void on_leave(const MemberRecord& member, const Leave& leave, Turn turn);
  void activate(MemberRecord& member, Turn turn);
  void note_outrun(MemberRecord& member, Turn turn);
  void note_lacks(MemberRecord& member, Turn turn);
  bool demote_stale(Turn turn);
  void lose(PeerId peer, const std::string& reason, Turn turn);
  void forget(PeerId peer, Turn turn);
  void change_epoch(Turn turn);
  void tell_keys(const MemberRecord& member, Turn turn);
  void tell_changed_keys(Turn turn);

  // The run.
  void start_if_due(Turn turn);
  void start(Turn turn);
  void stand_by(const MemberRecord& member, Turn turn);
  void stand_by(Turn turn);
  std::optional<Redirect> announced() const;
  bool is_run_done() const {
    return options_.steps_total > 0 && rounds_.committed_step() >= options_.steps_total;
  }
  void hear_of_run(LinkId link, const Message& message, Turn turn);
  void hear_of_end(LinkId link, const Message& message, Turn turn);
  void give_way(Turn turn);
  void call_up(Turn turn);
  void release(Turn turn);
  void send_away(const std::vector<Redirect>& places, Turn turn);
  void step_down(const std::string& reason, Turn turn);
  void watch_quorum(Turn turn);
  void keep_log();
  void dismiss_all(Turn turn);
  void start_over_if_lost(Turn turn);
  void review(Turn turn);
  void finish_if_done(Turn turn);

  const CoordinatorOptions options_;
  Speaker speaker_;
  Roster roster_;
  Admission admission_;
  Reachability reachability_;
  Announcer announcer_;
  Conduct conduct_;
  StateInForce in_force_;
  StandingReview standing_;
  Electors electors_;
  Beginning beginning_;
  RoundKeeper rounds_;
  SampleCounter samples_;
  bool is_started_ = false;
  std::set<uint64_t> unfinished_;  // Nodes that were active and have not said that they are done.
  bool somebody_is_done_ = false;
  Instant emptied_at_{};
  bool is_finished_ = false;
  bool is_retiring_ = false;
  int64_t joined_count_ = 0;
  int64_t lost_count_ = 0;
  uint64_t keys_generation_ = 0;  // That all members were told.
  Instant stood_by_at_{};
  std::optional<Redirect> elsewhere_;  // Where the run goes on, as somebody has said.
  Instant quorum_at_{};                // The last time that one followed us.
  RunLog log_;
};

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

// --- Life of a member.

base::Result<void> CoordinatorMachine::on_member(MemberRecord& member, const Message& message,
                                                 Turn turn) {
  const Authority& authority = message.authority;
  if (message.run != speaker_.run()) return base::Failure{"it speaks of another run"};
  if (authority.fragment >= in_force_.states().size())
    return base::Failure{"a fragment that does not exist"};
  switch (message.type) {
    case MessageType::kHeartbeat:
      return dispatch<Heartbeat>(message, [&](const auto& h) { on_heartbeat(member, h, turn); });
    case MessageType::kSynced:
      return dispatch<Synced>(message,
                              [&](const auto& s) { return on_synced(member, s, turn.now); });
    case MessageType::kReady:
      return dispatch<Ready>(message,
                             [&](const auto& r) { return rounds_.on_ready(member, authority, r); });
    case MessageType::kDone:
      return dispatch<Done>(
          message, [&](const auto& d) { rounds_.on_done(member, authority, d, turn.now); });
    case MessageType::kApplied:
      return dispatch<Applied>(message, [&](const auto& applied) {
        FragmentState& state = member.states[authority.fragment];
        if (state.version != authority.round) return;
        state.digest = applied.digest;
        in_force_.hear_last(authority.fragment, state);
      });
    case MessageType::kAudited:
      return dispatch<Audited>(
          message, [&](const auto& a) { rounds_.on_audited(member, authority, a, turn); });
    case MessageType::kMeasured:
      return dispatch<Measured>(message, [&](const auto& m) { rounds_.on_measured(member, m); });
    case MessageType::kNeedSamples:
      return dispatch<NeedSamples>(message, [&](const auto& need) {
        return samples_.grant(member, need, roster_, speaker_, turn);
      });
    case MessageType::kLeave:
      return dispatch<Leave>(message, [&](const auto& leave) { on_leave(member, leave, turn); });
    default:
      return base::Failure{fmt::format("message {} was not expected", int(message.type))};
  }
}

void CoordinatorMachine::on_heartbeat(MemberRecord& member, const Heartbeat& heartbeat, Turn turn) {
  const auto note = [&](MemberRecord::Since& since, uint64_t mask) {
    for (size_t peer = 0; peer < since.size(); ++peer) {
      const bool is_in = (mask >> peer & 1) != 0;
      if (!is_in) since[peer].reset();
      if (is_in && !since[peer]) since[peer] = turn.now;
    }
  };
  note(member.no_contribution_since, heartbeat.owes_contribution & heartbeat.silent);
  note(member.no_result_since, heartbeat.owes_result & heartbeat.silent);
  note(member.undialled_since, heartbeat.unreachable);
  for (auto& [peer, other] : roster_.all()) {
    if ((heartbeat.unreachable >> peer & 1) != 0) reachability_.doubt(peer, turn.now);
  }
  if (heartbeat.progress != member.heartbeat.progress) member.progress_at = turn.now;
  if (heartbeat.owes_contribution != 0) member.lacked_contributions_at = turn.now;
  member.heartbeat = heartbeat;
  member.step = heartbeat.step;
  member.loss = heartbeat.loss;
  member.heartbeat_at = turn.now;
  note_lacks(member, turn);
  speaker_.send(member.link, MessageType::kHeartbeatReply, no_payload(), turn);
}

base::Result<void> CoordinatorMachine::on_synced(MemberRecord& member, Synced synced, Instant now) {
  if (synced.states.size() != in_force_.states().size())
    return base::Failure{"a state without all fragments"};
  probe<"a Synced of one that is in step">(member.standing != Standing::kCatchingUp);
  if (member.standing != Standing::kCatchingUp) return {};
  for (size_t fragment = 0; fragment < synced.states.size(); ++fragment) {
    const FragmentState& was = member.states[fragment];
    const bool has_made_it = was.digest.is_zero() && was.version == synced.states[fragment].version;
    if (has_made_it) in_force_.hear_last(int64_t(fragment), synced.states[fragment]);
  }
  member.states = std::move(synced.states);
  member.is_synced = true;
  member.catch_up_time = now - member.told_at;
  const bool is_behind = !in_force_.is_held_by(member);
  probe<"the state moved on while a member took it over">(is_behind);
  // Told again only if it is not the state in force any more: who only waits for its digest would
  // answer the same at once, again and again.
  if (is_behind) member.catch_up.reset();
  return {};
}

void CoordinatorMachine::activate(MemberRecord& member, Turn turn) {
  // Those who were there at the start begin together, however soon each says that it is in step.
  const bool is_start = member.is_founder && rounds_.committed_count() == 0;
  const uint64_t step = rounds_.committed_step();
  member.came_in_between = !is_start && std::ranges::any_of(roster_.all(), [&](const auto& entry) {
    return entry.second.is_active() && entry.second.step > step;
  });
  probe<"a member comes in the middle of the others' steps">(member.came_in_between);
  member.standing = Standing::kActive;
  if (member.outrun_count > 0) rounds_.release_commits();
  member.outrun_count = 0;
  member.nearly_there_since.reset();
  joined_count_ += !member.was_active;
  member.was_active = true;
  member.entered_after = is_start ? -1 : rounds_.committed_count();
  unfinished_.insert(member.node_key);
  base::log_info("{} is active from step {}", member.name, step);
  const Start start{.step = step,
                    .samples_void_below = samples_.void_below(member, speaker_.term())};
  speaker_.send(member.link, MessageType::kStart, encode(start), turn);
  change_epoch(turn);
  rounds_.add_receiver(member, turn);
}

// Where rounds of several fragments end within two round trips, whoever was in step would hear of
// another commit each time, and never get in. What it took last may have been one fragment of many,
// so that each hold in vain makes the next one longer; who lies about it holds the others up ever
// more seldom.
void CoordinatorMachine::note_outrun(MemberRecord& member, Turn turn) {
  if (++member.outrun_count < 2 || !std::has_single_bit(member.outrun_count)) return;
  const int held_count = std::min(int(std::bit_width(member.outrun_count)) - 1, kHeldCountMax);
  rounds_.hold_commits(held_count * (2 * member.catch_up_time + kHeldMin), turn.now);
}

// The same where it is never in step at all: what it still lacks are the results of a round or two
// of each fragment, and those of the next ones come as quickly. So it needs about as long as they.
void CoordinatorMachine::note_lacks(MemberRecord& member, Turn turn) {
  const auto& counts = options_.chunk_counts;
  const auto few = 2 * std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const bool is_near = member.standing == Standing::kCatchingUp && !member.is_synced &&
                       member.heartbeat.lacks > 0 && member.heartbeat.lacks <= few;
  if (!is_near) return member.nearly_there_since.reset();
  const MemberRecord::Moment moment{.committed_count = rounds_.committed_count(), .at = turn.now};
  if (!member.nearly_there_since) member.nearly_there_since = moment;
  const MemberRecord::Moment since = *member.nearly_there_since;
  if (moment.committed_count - since.committed_count < kOutrunAfter * options_.fragment_count)
    return;
  probe<"who is never in step is outrun">();
  member.nearly_there_since = moment;
  member.catch_up_time = std::max(member.catch_up_time, (moment.at - since.at) / kOutrunAfter);
  note_outrun(member, turn);
}

// Active members whose state is not the one in force leave the open rounds. True if there were any.
bool CoordinatorMachine::demote_stale(Turn turn) {
  bool is_changed = false;
  for (auto& [peer, member] : roster_.all()) {
    if (!member.is_active() || in_force_.is_held_by(member)) continue;
    probe<"an active member's state is not the one in force">();
    base::log_warning("{} must catch up: its state is not the one in force", member.name);
    member.standing = Standing::kCatchingUp;
    member.is_synced = false;
    member.catch_up.reset();
    for (auto& ready : member.ready) ready.reset();
    rounds_.remove(peer);
    is_changed = true;
  }
  if (is_changed) change_epoch(turn);
  return is_changed;
}

void CoordinatorMachine::on_leave(const MemberRecord& member, const Leave& leave, Turn turn) {
  probe<"an active member leaves">(member.is_active());
  base::log_info("{} left: {}", member.name, leave.reason);
  tell(options_.on_incident,
       {.kind = Incident::Kind::kLeft, .who = member.name, .reason = leave.reason});
  if (leave.reason == kDoneReason) {
    unfinished_.erase(member.node_key);
    somebody_is_done_ = true;
  }
  turn.out.close(member.link);
  electors_.left(member.node_key);
  forget(member.peer, turn);
}

// Whoever can still hear it is told why. Nothing happens to a link that is closed already.
void CoordinatorMachine::lose(PeerId peer, const std::string& reason, Turn turn) {
  const MemberRecord& member = *roster_.find(peer);
  if (member.is_welcome) {
    standing_.notify(member, fmt::format("the coordinator gives it up: {}", reason), turn);
    tell(options_.on_incident,
         {.kind = Incident::Kind::kLost, .who = member.name, .reason = reason});
  } else {  // It has found the coordinator elsewhere, most likely.
    base::log_debug("{} does not wait here any more: {}", member.name, reason);
  }
  lost_count_ += member.was_active;
  turn.out.close(member.link);
  forget(peer, turn);
}

void CoordinatorMachine::forget(PeerId peer, Turn turn) {
  const bool was_active = roster_.find(peer)->is_active();
  roster_.remove(peer);
  rounds_.remove(peer);
  reachability_.forget(peer, turn);
  for (auto& [other, member] : roster_.all()) {
    member.no_contribution_since[peer].reset();
    member.no_result_since[peer].reset();
    member.undialled_since[peer].reset();
  }
  if (was_active && is_started_) change_epoch(turn);
  if (roster_.count() == 0) emptied_at_ = turn.now;
}

void CoordinatorMachine::change_epoch(Turn turn) {
  speaker_.next_epoch();
  log_.list = electors_.next(speaker_);
  keep_log();
  const Bytes payload = encode(log_.list);
  for (const PeerId peer : roster_.active_peers()) {
    speaker_.send(roster_.find(peer)->link, MessageType::kMembership, payload, turn);
  }
}

// Whoever is not on the list any more has lost his link to us already; this cuts those between
// members.
void CoordinatorMachine::tell_changed_keys(Turn turn) {
  if (!options_.allowed) return;
  turn.out.wake_at(turn.now + kKeysLookedAtEvery);
  if (options_.allowed->generation() == keys_generation_) return;
  keys_generation_ = options_.allowed->generation();
  for (const auto& [peer, member] : roster_.all()) tell_keys(member, turn);
}

void CoordinatorMachine::tell_keys(const MemberRecord& member, Turn turn) {
  if (!options_.allowed) return;
  speaker_.send(member.link, MessageType::kKeys, encode(Keys{options_.allowed->list()}), turn);
}

// --- The run.

void CoordinatorMachine::review(Turn turn) {
  start_if_due(turn);
  standing_.review(is_started_, turn);
  tell_visits(roster_, reachability_, speaker_, turn);
  if (!is_started_) return;
  judge_newer_states(turn);
  do {
    for (int64_t fragment = 0; fragment < options_.fragment_count; ++fragment) {
      const Instant overdue_at = rounds_.committed_at(fragment) + options_.round_timeout;
      in_force_.settle_digest(fragment, overdue_at, turn);
    }
    rounds_.commit_held(turn);
    for (auto& [peer, member] : roster_.all()) {
      const bool is_known = reachability_.finding(peer).has_value();
      if (member.standing != Standing::kCatchingUp || !member.is_synced || !is_known) continue;
      if (in_force_.is_shown_by(member)) activate(member, turn);
    }
    rounds_.review(turn);
  } while (demote_stale(turn));
  start_over_if_lost(turn);
  if (!is_started_) return;
  standing_.review(is_started_, turn);
  if (electors_.settle() || electors_.is_outdated()) change_epoch(turn);
  if (is_retiring_ && electors_.is_settled()) step_down("its node stops", turn);
  for (auto& [peer, member] : roster_.all()) {
    if (member.standing != Standing::kCatchingUp) continue;
    // It waits for something else. On a link inside of this process the two would go on without
    // end.
    if (options_.fail_over && member.is_synced && in_force_.is_held_by(member)) continue;
    const Bytes catch_up = encode(in_force_.catch_up_for(member, rounds_.committed_step()));
    if (member.catch_up && *member.catch_up == *catch_up) continue;
    if (member.is_synced) note_outrun(member, turn);
    member.catch_up = catch_up;
    member.told_at = turn.now;
    speaker_.send(member.link, MessageType::kCatchUp, catch_up, turn);
    speaker_.send(member.link, MessageType::kSamples, samples_.news(), turn);
  }
}

// Who waits here may wait elsewhere at the same time. He is told where the others are, if we know
// more of them than he does: each may be the one that he must find.
void CoordinatorMachine::stand_by(const MemberRecord& member, Turn turn) {
  speaker_.send(member.link, MessageType::kStandBy, encode(StandBy{options_.identity}), turn);
  if (elsewhere_) speaker_.send(member.link, MessageType::kRedirect, encode(*elsewhere_), turn);
  if (std::tuple(log_.list_term, log_.epoch) <= std::tuple(member.list_term, member.list_epoch))
    return;
  for (const Seat& seat : log_.list.members) {
    if (!seat.is_reachable || seat.node_key == options_.identity) continue;
    speaker_.send(member.link, MessageType::kRedirect, encode(Redirect{seat.data, seat.node_key}),
                  turn);
  }
}

// So that each knows that the other is alive.
void CoordinatorMachine::stand_by(Turn turn) {
  if (is_started_ || roster_.count() == 0 ||
      !turn.is_due(stood_by_at_ + options_.heartbeat_interval))
    return;
  stood_by_at_ = turn.now;
  const Bytes payload = encode(StandBy{options_.identity});
  for (const auto& [peer, member] : roster_.all()) {
    if (!member.is_welcome) speaker_.send(member.link, MessageType::kStandBy, payload, turn);
  }
}

// Ourselves, while nobody comes by the configured address.
std::optional<Redirect> CoordinatorMachine::announced() const {
  const MemberRecord* const own = roster_.find_node(options_.identity);
  if (!is_started_ || !options_.fail_over || !own || beginning_.is_home()) return std::nullopt;
  return Redirect{.coordinator = own->data, .node_key = options_.identity};
}

// Whoever was welcomed here has waited in vain, and looks there.
void CoordinatorMachine::hear_of_run(LinkId link, const Message& message, Turn turn) {
  admission_.on_link_closed(link);
  turn.out.close(link);
  const auto redirect = decode<Redirect>(*message.payload);
  if (!redirect.ok() || message.run != speaker_.run() || is_started_ || !options_.fail_over) return;
  probe<"a coordinator hears that the run goes on elsewhere">();
  elsewhere_ = *redirect;
  beginning_.hear_of_run();
  for (const auto& [peer, member] : roster_.all()) {
    if (!member.is_welcome) stand_by(member, turn);
  }
}

// Somebody is at the configured address, and whoever comes there cannot dial this node: were it to
// go on, it would go on alone. So it lets whoever is there take the run over, with itself as the
// first member.
void CoordinatorMachine::give_way(Turn turn) {
  const MemberRecord* const own = roster_.find_node(options_.identity);
  if (!own || own->was_reachable || roster_.count() > 1 || !beginning_.give_way(turn)) return;
  probe<"a coordinator that nobody can dial gives way">();
  step_down("nobody can dial it, and somebody is at the run's address", turn);
}

// From whoever coordinates elsewhere: nobody will come here any more.
void CoordinatorMachine::hear_of_end(LinkId link, const Message& message, Turn turn) {
  admission_.on_link_closed(link);
  turn.out.close(link);
  const auto leave = decode<Leave>(*message.payload);
  const bool is_end = leave.ok() && leave->reason == kDoneReason && message.run == speaker_.run();
  if (!is_end || is_started_ || !options_.fail_over || roster_.count() > 0) return;
  probe<"a coordinator hears that the run was done elsewhere">();
  base::log_info("the run was done with another coordinator");
  is_finished_ = true;
}

void CoordinatorMachine::call_up(Turn turn) {
  for (auto& [peer, member] : roster_.all()) {
    if (!member.is_welcome) welcome(member, turn);
  }
}

void CoordinatorMachine::release(Turn turn) {
  for (const PeerId peer : roster_.peers()) {
    const MemberRecord& member = *roster_.find(peer);
    if (!member.is_welcome) continue;
    probe<"members that were welcomed look for a coordinator again">();
    turn.out.close(member.link);
    forget(peer, turn);
  }
}

void CoordinatorMachine::send_away(const std::vector<Redirect>& places, Turn turn) {
  for (const PeerId peer : roster_.peers()) {
    const LinkId link = roster_.find(peer)->link;
    for (const Redirect& place : places)
      speaker_.send(link, MessageType::kRedirect, encode(place), turn);
    turn.out.close(link);
    forget(peer, turn);
  }
}

// Members that follow nobody look for a coordinator; those that stay with one that cannot commit do
// not.
void CoordinatorMachine::watch_quorum(Turn turn) {
  if (!is_started_ || !options_.fail_over || roster_.count() == 0) return;
  if (electors_.is_quorum_fenced()) quorum_at_ = turn.now;
  if (turn.is_due(quorum_at_ + options_.dead_after))
    step_down("it has too few of the last members", turn);
}

void CoordinatorMachine::step_down(const std::string& reason, Turn turn) {
  probe<"a coordinator steps down">(is_started_);
  if (is_started_) base::log_warning("this is not the run's coordinator any more: {}", reason);
  is_started_ = false;
  electors_.end();
  for (const PeerId peer : roster_.peers()) {
    const MemberRecord& member = *roster_.find(peer);
    standing_.notify(member, "the coordinator steps down: " + reason, turn);
    turn.out.close(member.link);
    forget(peer, turn);
  }
}

void CoordinatorMachine::keep_log() {
  log_.term = log_.list_term = speaker_.term();
  log_.coordinator = options_.identity;
  log_.epoch = speaker_.epoch();
  if (options_.keep_log) options_.keep_log(log_);
}

void CoordinatorMachine::start_if_due(Turn turn) {
  if (is_started_) return;
  switch (beginning_.review(turn)) {
    case Beginning::Verdict::kWait:
      return;
    case Beginning::Verdict::kRelease:
      return release(turn);
    case Beginning::Verdict::kCallUp:
      return call_up(turn);
    case Beginning::Verdict::kBegin:
      return start(turn);
  }
}

void CoordinatorMachine::start(Turn turn) {
  if (!in_force_.elect()) {  // Somebody who has the state must come.
    probe<"a start must wait for somebody with a whole state">();
    if (beginning_.is_grace_over(turn)) dismiss_all(turn);
    return;
  }
  call_up(turn);
  const auto inherited = options_.fail_over ? electors_.inheritance() : std::nullopt;
  is_started_ = true;
  quorum_at_ = turn.now;
  beginning_.has_begun();
  elsewhere_.reset();
  electors_.begin(inherited);
  if (inherited) rounds_.inherit_held(inherited->electorates);
  rounds_.commit_held(turn);  // Whoever holds such a round has the state in force.
  uint64_t step = 0;
  uint64_t samples = 0;
  for (auto& [peer, member] : roster_.all()) {
    member.standing = Standing::kCatchingUp;
    member.is_founder = in_force_.is_held_by(member);
    if (!member.is_founder) continue;
    step = std::max(step, member.step);
    samples = std::max(samples, member.samples);
  }
  rounds_.set_committed_step(std::max(step, rounds_.committed_step()));
  samples_.start(samples);
  base::log_info("the run starts with {} members at step {}, fragment 0 at version {}, sample {}",
                 roster_.count(), step, in_force_.states()[0].version, samples_.count());
}

// All were fetching the state when the last one that had it went away, and have only parts of it.
// What they have on disk is older, but whole.
void CoordinatorMachine::dismiss_all(Turn turn) {
  probe<"all are sent to their checkpoints">();
  const Reject dismissal{
      .reason = "nobody has the whole state of the run any more; go on from the last checkpoint",
      .restart_makes_sense = true};
  for (const PeerId peer : roster_.peers()) {
    reject(*roster_.find(peer), dismissal, turn);
    forget(peer, turn);
  }
}

// Everybody who had the state is gone. What the rest still has, they must say anew: their blocks
// may be half replaced. So all register again, and the rule of the start decides.
void CoordinatorMachine::start_over_if_lost(Turn turn) {
  if (!roster_.active_peers().empty()) return;
  for (size_t fragment = 0; fragment < in_force_.states().size(); ++fragment) {
    if (!in_force_.is_lost(fragment)) continue;
    if (roster_.count() > 0) {
      probe<"nobody has the state any more">();
      base::log_warning("nobody has version {} of fragment {} any more: the run starts over",
                        in_force_.states()[fragment].version, fragment);
    }
    is_started_ = false;
    electors_.end();
    speaker_.raise_term(speaker_.term() + 1);
    for (const PeerId peer : roster_.peers()) {
      turn.out.close(roster_.find(peer)->link);
      forget(peer, turn);
    }
    return;
  }
}

// A node that died and does not come back is waited for as long as at the start, not for ever.
void CoordinatorMachine::finish_if_done(Turn turn) {
  if (roster_.count() > 0 || !somebody_is_done_) return;
  if (unfinished_.empty() || turn.is_due(emptied_at_ + options_.start_grace)) is_finished_ = true;
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

}  // namespace

std::unique_ptr<Coordinator> Coordinator::create(const CoordinatorOptions& options) {
  return std::make_unique<CoordinatorMachine>(options);
}

}  // namespace net
