// The rounds of all fragments at one member: what was said ready, which round is open, and the
// exchange that makes it. The coordinator's side of the same is net/coordinator/round_keeper.h.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "net/exchange/exchange.h"
#include "net/exchange/fetcher.h"

namespace net {

class MemberRounds {
 public:
  // Both outlive the object.
  MemberRounds(FragmentStore& store, Fetcher& fetcher);

  int64_t fragment_count() const { return int64_t(slots_.size()); }

  // What the trainer said, until a round used it.
  const std::optional<Ready>& ready(int64_t fragment) const { return at(fragment).ready; }
  void set_ready(int64_t fragment, const Ready& ready) { at(fragment).ready = ready; }
  // What was promised for a contribution does not hold any more: an open round goes on without us.
  void withdraw(int64_t fragment);
  void forget_ready();

  // The coordinator's words. They fail if they cannot be. REQUIRES: the fragment exists.
  base::Result<void> on_open(Exchange::Setup setup);
  base::Result<void> on_reown(const Reown& reown, const Authority& authority);
  base::Result<Committed> on_commit(const Commit& commit, const Authority& authority, Instant now);
  void on_abort(const Authority& authority);
  void close_all();

  // REQUIRES: a chunk of a round.
  void deliver(const Fetcher::Delivery& delivery, const Bytes& payload, Turn turn);
  Answer answer(const ChunkName& name);

  struct Worked {
    bool is_more_left = false;
    bool has_new_results = false;  // Wants that had to wait may be answered now.
    struct Complete {
      Authority authority;
      base::Digest results;
    };
    std::vector<Complete> complete;  // Rounds of which all results are here: Done is due.
  };
  // Does some of what can be summed and hashed.
  Worked work();

 private:
  struct Slot {  // Of one fragment.
    std::optional<Ready> ready;
    std::unique_ptr<Exchange> exchange;  // The open round.
    Authority newest;                    // Of the last round that was open; later ones are to come.
    PeerId contributed_as = kNobody;     // Our number in it, where we were a contributor.
  };

  Slot& at(int64_t fragment) { return slots_[size_t(fragment)]; }
  const Slot& at(int64_t fragment) const { return slots_[size_t(fragment)]; }
  Exchange* exchange_of(const ChunkName& name);
  void want_missing(int64_t fragment);
  void close(int64_t fragment);

  FragmentStore& store_;
  Fetcher& fetcher_;
  std::vector<Slot> slots_;
};

}  // namespace net
