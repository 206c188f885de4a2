// The life of a member at its coordinator: what it says, how it gets in step, how it goes.
#include <algorithm>
#include <bit>
#include <numeric>

#include "base/log.h"
#include "net/coordinator/coordinator_machine.h"
#include "net/dispatch.h"
#include "net/probe.h"

namespace net {
namespace {

// For who is nearly in step, beside the time that he takes.
constexpr Duration kHeldMin = std::chrono::seconds(1);
// So many times longer is the last of them.
constexpr int kHeldCountMax = 3;
// Commits of each fragment that somebody who lacks little may miss.
constexpr int64_t kOutrunAfter = 4;
// Whoever is removed from the list is out within a second, everywhere.
constexpr Duration kKeysLookedAtEvery = std::chrono::milliseconds(250);

}  // namespace

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

}  // namespace net
