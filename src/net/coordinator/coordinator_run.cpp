// The run at its coordinator: where it begins and begins again, who waits for it here, where else
// it is, and when it is done.
#include <algorithm>

#include "base/log.h"
#include "net/coordinator/coordinator_machine.h"
#include "net/coordinator/visits.h"
#include "net/probe.h"

namespace net {

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

}  // namespace net
