// The coordinator's machine as its three files share it: coordinator.cpp (links, messages, the
// door), coordinator_members.cpp (the life of a member) and coordinator_run.cpp (where the run
// begins, is told to be, and ends).
//
// Every event is taken in first, then review() draws all conclusions from what is known. So it does
// not matter by which of several events a condition came true.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/coordinator.h"
#include "net/coordinator/admission.h"
#include "net/coordinator/announcer.h"
#include "net/coordinator/beginning.h"
#include "net/coordinator/conduct.h"
#include "net/coordinator/electors.h"
#include "net/coordinator/reachability.h"
#include "net/coordinator/round_keeper.h"
#include "net/coordinator/samples.h"
#include "net/coordinator/standing.h"
#include "net/coordinator/state_in_force.h"

namespace net {

class CoordinatorMachine final : public Coordinator {
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

}  // namespace net
