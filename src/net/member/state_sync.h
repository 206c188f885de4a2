// Whether our committed state is the one in force, and how to make it so: blocks are fetched from
// all donors, each carries the version it belongs to, and the trainer verifies the digests.
//
//   kSettled --stale--> kAnnounced --begin_fetch--> kFetching --last block--> kVerifying
//   --synced--> kSettled
//
// The coordinator may name a newer state at any time: fragments that moved are fetched anew, what
// was fetched of the others stays. Whose transfer takes longer than the time between two rounds of
// a fragment cannot catch up so, and is told.
#pragma once

#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "net/exchange/chunk.h"
#include "net/exchange/fetcher.h"
#include "net/fragment_store.h"
#include "net/member.h"

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
  Answer answer(const ChunkName& name) const;

  // For how long no block has come, if some should. That the state moves on is no movement of ours.
  Duration silence(Instant now) const;

 private:
  enum class Phase { kSettled, kAnnounced, kFetching, kVerifying };
  struct Collection {
    uint64_t version = 0;
    std::set<int64_t> blocks;  // That are there.
    int64_t bytes = 0;
  };

  bool is_stale(size_t fragment) const;
  std::set<int64_t> stale_fragments() const;
  bool is_being_fetched(size_t fragment) const { return states_[fragment].version == kNoVersion; }
  Outcome review(Instant now);
  void fetch(int64_t fragment, uint64_t version, Instant now);
  void note_outrun(int64_t fragment, uint64_t version, Instant now);
  void want_missing(int64_t fragment);
  Outcome finish_if_complete();

  FragmentStore& store_;
  Fetcher& fetcher_;
  std::vector<FragmentState> states_;
  std::multiset<int64_t> being_applied_;  // A fragment as often as its commits are unanswered.
  std::optional<CatchUp> expected_;       // While we are catching up.
  int64_t unanswered_count_ = 0;          // Of CatchUpNeeded: begin_fetch is to come as often.
  std::set<int64_t> announced_;           // May be written, once begin_fetch was called.
  Phase phase_ = Phase::kSettled;
  std::vector<Collection> collections_;
  int64_t fetch_count_ = 0;          // Another order of donors at every try.
  std::optional<Instant> moved_at_;  // Since we wait for blocks.
  struct Outrun {                    // How often the state moved on before we had it.
    int64_t count = 0;
    int64_t bytes = 0;  // That came in vain.
    std::optional<Instant> since;
  };
  Outrun outrun_;
};

}  // namespace net
