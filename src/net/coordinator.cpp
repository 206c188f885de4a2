// Who is a member, and which state is the run's. Rounds are in net/round_keeper.h, the choice of
// the state in net/lineage.h.
//
// Every event is taken in first, then review() draws all conclusions from what is known. So it does
// not matter by which of several events a condition came true.
#include "net/coordinator.h"

#include "base/log.h"
#include "net/admission.h"
#include "net/dispatch.h"
#include "net/lineage.h"
#include "net/round_keeper.h"
#include "net/samples.h"

namespace net {
namespace {

using std::chrono::milliseconds;

// Between the connection and its Hello.
constexpr Duration kHelloWithin = std::chrono::seconds(10);

class CoordinatorMachine : public Coordinator {
 public:
  explicit CoordinatorMachine(const CoordinatorOptions& options);

  void on_start(Instant, Outbox&) override {}
  void on_link_open(LinkId link, bool incoming, const Endpoint& remote, Instant now,
                    Outbox& out) override;
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override;
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override;
  void on_drained(LinkId, Instant, Outbox&) override {}
  void on_tick(Instant now, Outbox& out) override;
  CoordinatorReport report() const override;

 private:
  struct Stranger {  // A link without a Hello.
    Endpoint remote;
    Instant came_at{};
  };

  // Admission.
  void on_stranger(LinkId link, const Message& message, Turn turn);
  void reject(LinkId link, const Reject& reject, Turn turn);
  void admit(LinkId link, const Endpoint& remote, const Hello& hello, uint32_t term, Turn turn);

  // Life of a member.
  base::Result<void> on_member(MemberRecord& member, const Message& message, Turn turn);
  void on_heartbeat(MemberRecord& member, const Heartbeat& heartbeat, Turn turn);
  base::Result<void> on_synced(MemberRecord& member, Synced synced, Turn turn);
  void on_leave(const MemberRecord& member, const Leave& leave, Turn turn);
  void activate(MemberRecord& member, Turn turn);
  bool demote_stale(Turn turn);
  void lose(PeerId peer, const std::string& reason, Turn turn);
  void forget(PeerId peer, Turn turn);
  void change_epoch(Turn turn);

  // The state in force.
  std::vector<Claim> claims(int64_t fragment, bool only_active) const;
  void start_if_due(Turn turn);
  void dismiss_all(Turn turn);
  bool elect_states();
  void adopt_newer(const MemberRecord& member, Turn turn);
  void settle_digest(int64_t fragment, Turn turn);
  bool holds_some_state(const MemberRecord& member) const;
  bool holds_state(const MemberRecord& member) const;
  CatchUp catch_up_for(const MemberRecord& member) const;
  void start_over_if_lost(Turn turn);
  void review(Turn turn);
  void finish_if_done(Turn turn);
  uint64_t global_step() const;

  const CoordinatorOptions options_;
  Speaker speaker_;
  Roster roster_;
  std::map<LinkId, Stranger> strangers_;
  std::vector<FragmentState> in_force_;
  RoundKeeper rounds_;
  SampleCounter samples_;
  bool is_started_ = false;
  uint64_t step_floor_ = 0;
  Instant first_came_at_{};        // Of those who wait for the start.
  std::set<uint64_t> unfinished_;  // Nodes that were active and have not said that they are done.
  bool somebody_is_done_ = false;
  Instant emptied_at_{};
  bool is_finished_ = false;
  int64_t joined_count_ = 0;
  int64_t lost_count_ = 0;
};

CoordinatorMachine::CoordinatorMachine(const CoordinatorOptions& options)
    : options_(options),
      speaker_(run_hash(options.run_name), options.term),
      in_force_(size_t(options.fragment_count)),
      rounds_(options_, roster_, in_force_, speaker_) {
  CHECK(int64_t(options.chunk_counts.size()) == options.fragment_count, "{} chunk counts for {}",
        options.chunk_counts.size(), options.fragment_count);
}

void CoordinatorMachine::on_link_open(LinkId link, bool, const Endpoint& remote, Instant now,
                                      Outbox&) {
  strangers_[link] = {.remote = remote, .came_at = now};
}

void CoordinatorMachine::on_link_closed(LinkId link, const std::string& reason, Instant now,
                                        Outbox& out) {
  strangers_.erase(link);
  if (const MemberRecord* const member = roster_.find_link(link)) {
    lose(member->peer, reason, {now, out});
    review({now, out});
  }
}

void CoordinatorMachine::on_message(LinkId link, const Message& message, Instant now, Outbox& out) {
  const Turn turn{now, out};
  if (strangers_.contains(link)) {
    on_stranger(link, message, turn);
  } else if (MemberRecord* const member = roster_.find_link(link)) {
    const PeerId peer = member->peer;
    member->heard_at = now;
    const auto handled = on_member(*member, message, turn);
    if (!handled.ok()) {
      out.close(link);
      lose(peer, handled.reason(), turn);
    }
  }
  review(turn);
}

void CoordinatorMachine::on_tick(Instant now, Outbox& out) {
  const Turn turn{now, out};
  std::erase_if(strangers_, [&](const auto& stranger) {
    const bool is_late = now - stranger.second.came_at >= kHelloWithin;
    if (is_late) out.close(stranger.first);
    return is_late;
  });
  for (const PeerId peer : roster_.peers()) {
    const MemberRecord& member = *roster_.find(peer);
    const Duration silence = now - member.heard_at;
    if (silence < options_.dead_after) continue;
    out.close(member.link);
    lose(peer, fmt::format("silent for {:.1f} s", std::chrono::duration<double>(silence).count()),
         turn);
  }
  review(turn);
  finish_if_done(turn);
}

// --- Admission.

void CoordinatorMachine::on_stranger(LinkId link, const Message& message, Turn turn) {
  const Endpoint remote = strangers_.at(link).remote;
  strangers_.erase(link);
  const auto hello = read_hello(message, options_);
  if (!hello.ok()) return reject(link, {hello.reason()}, turn);
  if (const auto allowed = may_join(*hello, options_, roster_); !allowed.ok()) {
    return reject(link, {allowed.reason()}, turn);
  }
  admit(link, remote, *hello, message.authority.term, turn);
}

void CoordinatorMachine::reject(LinkId link, const Reject& reject, Turn turn) {
  base::log_warning("rejected a node: {}", reject.reason);
  speaker_.send(link, MessageType::kReject, encode(reject), turn);
  turn.out.close(link);
}

void CoordinatorMachine::admit(LinkId link, const Endpoint& remote, const Hello& hello,
                               uint32_t term, Turn turn) {
  if (const MemberRecord* const old = roster_.find_node(hello.node_key)) {
    turn.out.close(old->link);
    lose(old->peer, "it registered again", turn);
  }
  // Before the start this is the successor of whoever gave out that term; after it, only of those
  // whose term is higher.
  if (!is_started_ || term > speaker_.term()) speaker_.raise_term(term + 1);
  MemberRecord record{.link = link, .node_key = hello.node_key, .name = hello.node_name};
  record.data = hello.listen;
  if (record.data.host.empty()) record.data.host = remote.host;
  record.states = hello.states;
  record.ready.resize(size_t(options_.fragment_count));
  record.step = hello.step;
  record.term = term;
  record.samples = hello.samples;
  record.heard_at = record.heartbeat_at = record.progress_at = turn.now;
  if (roster_.count() == 0) first_came_at_ = turn.now;
  MemberRecord* const member = roster_.add(std::move(record), rounds_.numbers());
  if (member == nullptr) {  // All numbers stand in open rounds. It will dial again.
    turn.out.close(link);
    return;
  }
  base::log_info("{} registered as peer {} with data address {}", member->name, member->peer,
                 member->data.text());
  const Welcome welcome{
      .peer = member->peer,
      .heartbeat_interval_ms = uint32_t(options_.heartbeat_interval / milliseconds(1)),
      .dead_after_ms = uint32_t(options_.dead_after / milliseconds(1))};
  speaker_.send(link, MessageType::kWelcome, encode(welcome), turn);
  if (!is_started_) return;
  member->standing = Standing::kCatchingUp;
  adopt_newer(*member, turn);
}

// --- Life of a member.

base::Result<void> CoordinatorMachine::on_member(MemberRecord& member, const Message& message,
                                                 Turn turn) {
  const Authority& authority = message.authority;
  if (message.run != speaker_.run()) return base::Failure{"it speaks of another run"};
  if (authority.fragment >= in_force_.size())
    return base::Failure{"a fragment that does not exist"};
  switch (message.type) {
    case MessageType::kHeartbeat:
      return dispatch<Heartbeat>(message, [&](const auto& h) { on_heartbeat(member, h, turn); });
    case MessageType::kSynced:
      return dispatch<Synced>(message, [&](const auto& s) { return on_synced(member, s, turn); });
    case MessageType::kReady:
      return dispatch<Ready>(message,
                             [&](const auto& r) { rounds_.on_ready(member, authority, r); });
    case MessageType::kDone:
      return dispatch<Done>(message, [&](const auto& d) { rounds_.on_done(member, authority, d); });
    case MessageType::kApplied:
      return dispatch<Applied>(message, [&](const auto& applied) {
        FragmentState& state = member.states[authority.fragment];
        if (state.version == authority.round) state.digest = applied.digest;
      });
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
  if (heartbeat.progress != member.progress) member.progress_at = turn.now;
  member.progress = heartbeat.progress;
  member.step = heartbeat.step;
  member.loss = heartbeat.loss;
  member.heartbeat_at = turn.now;
  for (size_t peer = 0; peer < member.waiting_since.size(); ++peer) {
    auto& since = member.waiting_since[peer];
    const bool waits = (heartbeat.waiting_for >> peer & 1) != 0;
    if (!waits) since.reset();
    if (waits && !since) since = turn.now;
  }
  speaker_.send(member.link, MessageType::kHeartbeatReply, no_payload(), turn);
}

base::Result<void> CoordinatorMachine::on_synced(MemberRecord& member, Synced synced, Turn turn) {
  if (synced.states.size() != in_force_.size())
    return base::Failure{"a state without all fragments"};
  if (member.standing != Standing::kCatchingUp) return {};
  member.states = std::move(synced.states);
  member.catch_up.reset();  // If this is not the state in force any more, it must be told again.
  if (holds_state(member)) activate(member, turn);
  return {};
}

void CoordinatorMachine::activate(MemberRecord& member, Turn turn) {
  // Those who were there at the start begin together, however soon each says that it is in step.
  const bool is_start = member.is_founder && rounds_.committed_count() == 0;
  const uint64_t step = is_start ? step_floor_ : global_step();
  member.standing = Standing::kActive;
  joined_count_ += !member.was_active;
  member.was_active = true;
  member.entered_at = is_start ? 0 : step;
  unfinished_.insert(member.node_key);
  base::log_info("{} is active from step {}", member.name, step);
  const Start start{.step = step,
                    .samples_void_below = samples_.void_below(member, speaker_.term())};
  speaker_.send(member.link, MessageType::kStart, encode(start), turn);
  change_epoch(turn);
  rounds_.add_receiver(member, turn);
}

// Active members whose state is not the one in force leave the open rounds. True if there were any.
bool CoordinatorMachine::demote_stale(Turn turn) {
  bool is_changed = false;
  for (auto& [peer, member] : roster_.all()) {
    if (!member.is_active() || holds_state(member)) continue;
    base::log_warning("{} must catch up: its state is not the one in force", member.name);
    member.standing = Standing::kCatchingUp;
    member.catch_up.reset();
    for (auto& ready : member.ready) ready.reset();
    rounds_.remove(peer);
    is_changed = true;
  }
  if (is_changed) change_epoch(turn);
  return is_changed;
}

void CoordinatorMachine::on_leave(const MemberRecord& member, const Leave& leave, Turn turn) {
  base::log_info("{} left: {}", member.name, leave.reason);
  if (leave.reason == kDoneReason) {
    unfinished_.erase(member.node_key);
    somebody_is_done_ = true;
  }
  turn.out.close(member.link);
  forget(member.peer, turn);
}

// The link is closed by whoever calls this, if it is not already.
void CoordinatorMachine::lose(PeerId peer, const std::string& reason, Turn turn) {
  const MemberRecord& member = *roster_.find(peer);
  base::log_warning("lost {}: {}", member.name, reason);
  lost_count_ += member.was_active;
  forget(peer, turn);
}

void CoordinatorMachine::forget(PeerId peer, Turn turn) {
  const bool was_active = roster_.find(peer)->is_active();
  roster_.remove(peer);
  rounds_.remove(peer);
  for (auto& [other, member] : roster_.all()) member.waiting_since[peer].reset();
  if (was_active) change_epoch(turn);
  if (roster_.count() == 0) emptied_at_ = turn.now;
}

void CoordinatorMachine::change_epoch(Turn turn) {
  speaker_.next_epoch();
  const std::vector<PeerId> active = roster_.active_peers();
  const Bytes payload = encode(Membership{active});
  for (const PeerId peer : active) {
    speaker_.send(roster_.find(peer)->link, MessageType::kMembership, payload, turn);
  }
}

// --- The state in force.

void CoordinatorMachine::review(Turn turn) {
  start_if_due(turn);
  if (!is_started_) return;
  do {
    rounds_.review(turn);
    for (int64_t fragment = 0; fragment < options_.fragment_count; ++fragment) {
      settle_digest(fragment, turn);
    }
  } while (demote_stale(turn));
  start_over_if_lost(turn);
  for (auto& [peer, member] : roster_.all()) {
    if (member.standing != Standing::kCatchingUp) continue;
    const Bytes catch_up = encode(catch_up_for(member));
    if (member.catch_up && *member.catch_up == *catch_up) continue;
    member.catch_up = catch_up;
    speaker_.send(member.link, MessageType::kCatchUp, catch_up, turn);
    speaker_.send(member.link, MessageType::kSamples, samples_.news(), turn);
  }
}

std::vector<Claim> CoordinatorMachine::claims(int64_t fragment, bool only_active) const {
  std::vector<Claim> claims;
  for (const auto& [peer, member] : roster_.all()) {
    if (only_active && !member.is_active()) continue;
    claims.push_back({.peer = peer, .state = member.states[size_t(fragment)]});
  }
  return claims;
}

void CoordinatorMachine::start_if_due(Turn turn) {
  if (is_started_ || roster_.count() == 0) return;
  const bool are_all = roster_.count() >= options_.start_members;
  const bool are_enough = roster_.count() >= options_.members_min;
  const bool is_grace_over = turn.now - first_came_at_ >= options_.start_grace;
  if (!are_all && !(are_enough && is_grace_over)) return;
  if (!elect_states()) {  // Somebody who has the state must come.
    if (is_grace_over) dismiss_all(turn);
    return;
  }
  is_started_ = true;
  // The step of those who have the state; a node with an older one may have gone further on its
  // own.
  step_floor_ = 0;
  uint64_t samples = 0;
  for (auto& [peer, member] : roster_.all()) {
    member.standing = Standing::kCatchingUp;
    member.is_founder = holds_state(member);
    if (!member.is_founder) continue;
    step_floor_ = std::max(step_floor_, member.step);
    samples = std::max(samples, member.samples);
  }
  samples_.start(samples);
  base::log_info("the run starts with {} members at step {}, fragment 0 at version {}, sample {}",
                 roster_.count(), step_floor_, in_force_[0].version, samples_.count());
}

// All were fetching the state when the last one that had it went away, and have only parts of it.
// What they have on disk is older, but whole.
void CoordinatorMachine::dismiss_all(Turn turn) {
  const Reject dismissal{
      .reason = "nobody has the whole state of the run any more; go on from the last checkpoint",
      .restart_makes_sense = true};
  for (const PeerId peer : roster_.peers()) {
    reject(roster_.find(peer)->link, dismissal, turn);
    forget(peer, turn);
  }
}

bool CoordinatorMachine::elect_states() {
  std::vector<FragmentState> elected;
  for (int64_t fragment = 0; fragment < options_.fragment_count; ++fragment) {
    const auto state = elect_state(claims(fragment, false));
    if (!state) return false;
    elected.push_back(*state);
  }
  in_force_ = std::move(elected);
  return true;
}

// A node that comes late, to a coordinator that has forgotten, may be the one that knows how far
// the run was.
void CoordinatorMachine::adopt_newer(const MemberRecord& member, Turn turn) {
  for (size_t fragment = 0; fragment < in_force_.size(); ++fragment) {
    const FragmentState& state = member.states[fragment];
    if (state.version == kNoVersion || state.version <= in_force_[fragment].version) continue;
    base::log_warning("{} has version {} of fragment {}, newer than {}: it is in force now",
                      member.name, state.version, fragment, in_force_[fragment].version);
    rounds_.abort(int64_t(fragment), "a newer state has come", turn);
    in_force_[fragment] = state;
    step_floor_ = std::max(step_floor_, member.step);
    samples_.adopt(member.samples);
  }
}

// After a commit: which digest the new state has, by the majority of those who made it.
void CoordinatorMachine::settle_digest(int64_t fragment, Turn turn) {
  FragmentState& state = in_force_[size_t(fragment)];
  if (!state.digest.is_zero()) return;
  const auto voters = claims(fragment, true);
  if (const auto digest = majority_digest(voters, state.version)) state.digest = *digest;
  const auto is_open = [&](const Claim& claim) {
    return claim.state.version == state.version && claim.state.digest.is_zero();
  };
  const bool have_all_voted = std::ranges::none_of(voters, is_open);
  const bool is_overdue = turn.now - rounds_.committed_at(fragment) >= options_.round_timeout;
  if (!state.digest.is_zero() || (!have_all_voted && !is_overdue)) return;
  const auto elected = elect_state(voters);
  if (elected && elected->version == state.version) state.digest = elected->digest;
}

bool CoordinatorMachine::holds_some_state(const MemberRecord& member) const {
  for (size_t fragment = 0; fragment < in_force_.size(); ++fragment) {
    if (is_current(member.states[fragment], in_force_[fragment])) return true;
  }
  return false;
}

bool CoordinatorMachine::holds_state(const MemberRecord& member) const {
  for (size_t fragment = 0; fragment < in_force_.size(); ++fragment) {
    if (!is_current(member.states[fragment], in_force_[fragment])) return false;
  }
  return true;
}

CatchUp CoordinatorMachine::catch_up_for(const MemberRecord& member) const {
  CatchUp catch_up{.states = in_force_, .donors = {}};
  for (const auto& [peer, donor] : roster_.all()) {
    if (peer == member.peer || !holds_some_state(donor)) continue;
    catch_up.donors.push_back({.peer = peer, .data = donor.data});
  }
  return catch_up;
}

// Everybody who had the state is gone. What the rest still has, they must say anew: their blocks
// may be half replaced. So all register again, and the rule of the start decides.
void CoordinatorMachine::start_over_if_lost(Turn turn) {
  if (!roster_.active_peers().empty()) return;
  for (size_t fragment = 0; fragment < in_force_.size(); ++fragment) {
    const auto holds = [&](const auto& entry) {
      return is_current(entry.second.states[fragment], in_force_[fragment]);
    };
    if (std::ranges::any_of(roster_.all(), holds)) continue;
    if (roster_.count() > 0) {
      base::log_warning("nobody has version {} of fragment {} any more: the run starts over",
                        in_force_[fragment].version, fragment);
    }
    is_started_ = false;
    speaker_.raise_term(speaker_.term() + 1);
    for (const PeerId peer : roster_.peers()) {
      turn.out.close(roster_.find(peer)->link);
      forget(peer, turn);
    }
    return;
  }
}

uint64_t CoordinatorMachine::global_step() const {
  uint64_t step = step_floor_;
  for (const auto& [peer, member] : roster_.all()) {
    if (member.is_active()) step = std::max(step, member.step);
  }
  return step;
}

// A node that died and does not come back is waited for as long as at the start, not for ever.
void CoordinatorMachine::finish_if_done(Turn turn) {
  if (roster_.count() > 0 || !somebody_is_done_) return;
  const bool is_grace_over = turn.now - emptied_at_ >= options_.start_grace;
  if (unfinished_.empty() || is_grace_over) is_finished_ = true;
}

CoordinatorReport CoordinatorMachine::report() const {
  CoordinatorReport report;
  report.epoch = speaker_.epoch();
  for (const auto& [peer, member] : roster_.all()) {
    report.members.push_back({peer, member.name, member.is_active(), member.step, member.loss});
  }
  report.states = in_force_;
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
