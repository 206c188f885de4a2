// The member's machine as its two files share it: member.cpp (events, the trainer's commands) and
// member_words.cpp (what the coordinator and it say to each other). It hands every event to the
// part that it concerns and lets all of them go on after each call. The parts:
// net/member/registration.h (is there a coordinator?), net/member/state_sync.h (do we have the
// state in force?), net/member/member_rounds.h (which rounds are open?), and net/exchange/fetcher.h
// and net/exchange/server.h, which move chunks for the two before.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/exchange/fetcher.h"
#include "net/exchange/outreach.h"
#include "net/exchange/server.h"
#include "net/member.h"
#include "net/member/member_rounds.h"
#include "net/member/registration.h"
#include "net/member/sample_request.h"
#include "net/member/state_sync.h"

namespace net {

class MemberMachine final : public Member {
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

}  // namespace net
