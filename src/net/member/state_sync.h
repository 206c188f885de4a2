// Whether our committed state is the one in force, and how to make it so: blocks are fetched from
// all donors, each carries the version it belongs to and is brought on by the results of the rounds
// since (net/member/fragment_catch_up.h), and the trainer verifies the digests. Whoever has a state
// that is only a few rounds old fetches no blocks at all.
//
// If the digest is not the one in force, the digests that it is made of tell which blocks are
// wrong, and only those are fetched again.
//
//   kSettled --stale--> kAnnounced --begin_fetch--> kFetching --last block--> kVerifying
//   --synced--> kSettled
//
// The coordinator may name a newer state at any time: the results that make it are fetched as well,
// what was fetched stays. Who cannot even get those as quickly as rounds are made, or comes when
// they are not kept any more, fetches again, and is told.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "net/exchange/chunk.h"
#include "net/exchange/fetcher.h"
#include "net/fragment_store.h"
#include "net/member.h"
#include "net/member/fragment_catch_up.h"

namespace net {

class StateSync {
 public:
  // Both outlive the object. `states`: what the node has.
  StateSync(FragmentStore& store, Fetcher& fetcher, std::vector<FragmentState> states);

  // What to do now: nothing, tell the coordinator Synced, or tell the trainer.
  struct TellSynced {};
  using Outcome = std::variant<std::monostate, TellSynced, CatchUpNeeded, Fetched>;

  const std::vector<FragmentState>& states() const { return states_; }

  base::Result<Outcome> on_catch_up(const CatchUp& catch_up, PeerId self, Instant now);
  Outcome begin_fetch(Instant now);
  Outcome synced(std::vector<FragmentState> states, Instant now);
  // The trainer was given the round that makes this version; until applied() the digest is unknown.
  void on_committed(int64_t fragment, uint64_t version);
  Outcome applied(int64_t fragment, const FragmentState& state, Instant now);
  // We are an active member: from now on rounds change the state.
  void on_started() { expected_.reset(); }
  bool is_settled() const { return phase_ == Phase::kSettled; }
  // Whether a ready() that comes now is about the state as it is. If not, the trainer said it
  // before it heard of the commit or of the CatchUpNeeded that crossed it.
  bool takes_ready(int64_t fragment) const {
    return is_settled() && !being_applied_.contains(fragment);
  }

  Outcome deliver(const Fetcher::Delivery& delivery, const Bytes& payload, Turn turn);
  // Nobody has these any more.
  Outcome on_nobody_has(const std::vector<ChunkName>& names, Instant now);
  Answer answer(const ChunkName& name);

  // For how long no block has come, if some should. That the state moves on is no movement of ours.
  bool is_silent_for(Duration patience, Turn turn) const;

 private:
  enum class Phase { kSettled, kAnnounced, kFetching, kVerifying };
  bool is_stale(size_t fragment) const;
  std::set<int64_t> stale_fragments() const;
  bool is_being_fetched(size_t fragment) const { return states_[fragment].version == kNoVersion; }
  Outcome review(Instant now);
  void fetch(int64_t fragment, Instant now);
  void note_outrun(int64_t fragment, Instant now);
  void want(int64_t fragment, const FragmentCatchUp::Need& need);
  std::vector<Donor> donors_from(int64_t turn) const;
  base::Result<bool> take_block(const ChunkName& name, const Bytes& payload);
  base::Result<bool> take_past(const ChunkName& name, const Bytes& payload);
  base::Result<bool> take_digests(const ChunkName& name, const Bytes& payload);
  void suspect_fetched();
  void lose_digests(const ChunkName& name);
  void want_digests();
  Answer answer_past(const ChunkName& name);
  Answer answer_digests(const ChunkName& name);
  uint64_t applied_version(size_t fragment) const {
    return states_[fragment].version - being_applied_.count(int64_t(fragment));
  }
  Outcome finish_if_complete();

  FragmentStore& store_;
  Fetcher& fetcher_;
  std::vector<FragmentState> states_;
  std::multiset<int64_t> being_applied_;  // A fragment as often as its commits are unanswered.
  std::optional<CatchUp> expected_;       // While we are catching up.
  int64_t unanswered_count_ = 0;          // Of CatchUpNeeded: begin_fetch is to come as often.
  std::set<int64_t> announced_;           // May be written, once begin_fetch was called.
  Phase phase_ = Phase::kSettled;
  std::vector<FragmentCatchUp> fragments_;
  std::vector<FragmentState> fetched_;         // What was given to the trainer to be verified.
  std::map<int64_t, FragmentState> suspects_;  // It was not that: which blocks are wrong?
  int64_t fetch_count_ = 0;                    // Another order of donors at every try.
  std::optional<Instant> moved_at_;            // Since we wait for blocks.
  struct Outrun {                              // How often what was here became too old.
    int64_t count = 0;
    int64_t bytes = 0;  // That came
    Instant since{};    // from then on.
  };
  Outrun outrun_;
};

}  // namespace net
