// The rounds of all fragments at one member: what was said ready, which round is open, and the
// exchange that makes it. The coordinator's side of the same is net/coordinator/round_keeper.h.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "net/exchange/exchange.h"
#include "net/exchange/fetcher.h"

namespace net {

class MemberRounds {
 public:
  struct AuditOptions {
    int64_t chunks = 0;   // Of every committed round, to be made again.
    uint64_t secret = 0;  // Which ones they are.
    Duration patience{};  // Until a part counts as not shown.
  };
  // Store and fetcher outlive the object.
  MemberRounds(FragmentStore& store, Fetcher& fetcher, const AuditOptions& audit);

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
  void on_audit(const Authority& authority, Instant now);
  void on_tick(Turn turn);
  void close_all();
  // The coordinator is lost. What is complete here is held until another one decides about it.
  void hold_complete();
  // And what was committed here last, so that others see whether it is what they hold.
  std::vector<HeldRound> held() const;
  void forget_held();
  void forget_made();  // Our state is another one.

  // REQUIRES: no block. What becomes of it is decided when a job has checked it.
  void deliver(const Fetcher::Delivery& delivery, const Bytes& payload, Turn turn);
  Answer answer(const ChunkName& name);

  // Something to check or to sum, if there is something. `finish` is for the loop thread again, and
  // does nothing if the round is over by then.
  struct Job {
    std::function<void()> work;
    std::function<void(Turn)> finish;
  };
  std::optional<Job> next_job();

  // Since the last call.
  struct News {
    bool has_new_results = false;  // Wants that had to wait may be answered now.
    struct Complete {
      Authority authority;
      base::Digest results;
    };
    std::vector<Complete> complete;  // Rounds of which all results are here: Done is due.
    std::vector<Audit::Finding> audited;
  };
  News take_news();
  // Chunks that were summed here.
  uint64_t sum_count() const { return sum_count_; }

 private:
  struct Slot {  // Of one fragment.
    std::optional<Ready> ready;
    std::shared_ptr<Exchange> exchange;  // The open round. Jobs only watch it.
    std::shared_ptr<Exchange> held;      // One that is complete, and whose end we have not heard.
    std::optional<HeldRound>
        made;          // The last one that was committed, as long as we have that state.
    Authority newest;  // Of the last round that was open; later ones are to come.
    std::optional<Contributor> us;  // As it named us, where we were one of its contributors.
    std::shared_ptr<Audit> audit;   // Of the round before, until the next one opens.
  };

  Slot& at(int64_t fragment) { return slots_[size_t(fragment)]; }
  const Slot& at(int64_t fragment) const { return slots_[size_t(fragment)]; }
  Exchange* exchange_of(const ChunkName& name);
  void finish(Exchange& exchange, const Exchange::Task& task, base::Result<Product> product,
              Turn turn);
  void want_missing(int64_t fragment);
  Exchange* to_commit(const Commit& commit, const Authority& authority) const;
  Audit* audit_of(const ChunkName& name);
  void want_proofs(int64_t fragment);
  std::optional<Job> next_audit_job();
  void close(int64_t fragment);

  FragmentStore& store_;
  Fetcher& fetcher_;
  const AuditOptions audit_;
  std::vector<Slot> slots_;
  uint64_t sum_count_ = 0;
};

}  // namespace net
