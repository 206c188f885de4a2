// The data side of one round at one member: which chunks it has, which it must still get and from
// whom, and what it can give. Nothing here waits, sends or applies; net/exchange/fetcher.h and
// net/exchange/server.h move the bytes.
//
// The one idea: a chunk's result is what its owner made of the parts that reached it, and says so
// (contributors, weight). Everybody uses the owner's bytes, so it does not matter that chunks may
// have different contributors after a failure: replicas stay equal, and the divisor is right.
//
// The plan says two things of each chunk: whose parts we sum, and from whom we have the result.
// Inside a tree a sum is a subtotal, which is a part of our parent's sum with the weight that is in
// it.
//
// Checking, summing and hashing are tasks for workers: next_task() hands one out, finish() takes
// what it came to, in any order and at any time.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "net/exchange/arithmetic.h"
#include "net/exchange/audit.h"
#include "net/exchange/chunk.h"
#include "net/exchange/plan.h"
#include "net/fragment_store.h"
#include "net/member.h"

namespace net {

class Exchange {
 public:
  struct Setup {
    PeerId self = kNobody;
    PeerId earlier_self =
        kNobody;          // Under which we contributed to this round, before we came back.
    Authority authority;  // Of the Open message.
    Open open;
    Instant opened_at{};
  };
  // Fails if the coordinator's Open cannot be. `store` outlives the object.
  static base::Result<std::unique_ptr<Exchange>> create(Setup setup, FragmentStore& store);

  // With the newest attempt.
  Authority authority() const;
  uint64_t step() const { return setup_.open.step; }
  bool is_contributor() const { return self_index_.has_value(); }
  PlanKind plan() const { return setup_.open.plan; }

  // Members are out. Chunks that have other owners have no results any more; those of the same
  // owner that are summed in another way have it if it was made.
  base::Result<void> reown(const Reown& reown, uint32_t attempt);
  // We are one of them.
  bool is_excluded() const;

  struct Missing {
    ChunkName name;
    Donor provider;
  };
  // What must be fetched, as things stand. Changes with reown() and with every delivery.
  std::vector<Missing> missing() const;

  // A wanted chunk has arrived. Fails at once if its provider had no right to send it; otherwise it
  // is a task to check it, and stays missing until then.
  base::Result<void> deliver(const ChunkName& name, PeerId from, const Bytes& payload);
  // For a name of this round.
  Answer answer(const ChunkName& name);

  struct Task {
    ChunkName name;         // What is checked, or the result that is summed.
    PeerId from = kNobody;  // Who delivered it; nobody: it is a sum.
    // To be called once. It needs nothing of this object, but the store.
    std::function<base::Result<Product>()> work;
  };
  // Sums first: others wait for them.
  std::optional<Task> next_task();
  // Fails if what was delivered is not what its provider had to send.
  base::Result<void> finish(const Task& task, base::Result<Product> product);

  // Whether answers to wants for results may have changed since the last call.
  bool take_has_new_results() { return std::exchange(has_new_results_, false); }
  // The digest of all results, once for each attempt, as soon as all are there.
  std::optional<base::Digest> take_digest();
  // REQUIRES: holds_all().
  bool holds_all() const { return digest_.has_value(); }
  const base::Digest& digest() const { return *digest_; }
  Committed finish(const Commit& commit, uint64_t epoch, Instant now) const;
  // What others need to make its sums again, and we to make theirs. Nothing if we are none of its
  // contributors, under our number. REQUIRES: holds_all().
  std::optional<Audit::Record> record() const;

 private:
  struct Chunk {
    std::vector<Product> parts;  // By contributor; only while we sum it and have not done so.
    bool is_being_summed = false;
    Product subtotal;  // Without a payload: there is none (yet).
    Product result;    // Likewise.
    bool has_result() const { return result.payload != nullptr; }
    bool is_summed() const { return is_being_summed || subtotal.payload || result.payload; }
  };

  Exchange(Setup setup, FragmentStore& store);
  int64_t contributor_count() const { return int64_t(setup_.open.contributors.size()); }
  const Tree& tree(int64_t chunk) const { return plan_.trees[size_t(chunk)]; }
  bool is_ours(int64_t chunk) const;
  // Whose parts we sum.
  ContributorMask children(int64_t chunk) const;
  WantKind kind_of_part(int64_t chunk, int64_t index) const;
  int64_t provider_of_result(int64_t chunk) const;
  bool has_all_parts(int64_t chunk) const;
  ChunkName name_of(WantKind kind, int64_t chunk) const;
  Donor provider(int64_t index) const;
  std::optional<int64_t> index_of(PeerId peer) const;
  // That it names some of `possible`, and their weight.
  base::Result<void> check_header(const ResultHeader& header, ContributorMask possible) const;
  base::Result<Task> check_of_part(const ChunkName& name, PeerId from, const Bytes& payload) const;
  base::Result<Task> check_of_result(const ChunkName& name, PeerId from,
                                     const Bytes& payload) const;
  Answer answer_contribution(const ChunkName& name);
  Answer answer_sum(const ChunkName& name) const;
  std::optional<Summand> summand(int64_t chunk, int64_t index);
  void void_sums(const Reown::Move& move, bool is_same_owner);
  void take_part(int64_t chunk, PeerId from, Product part);
  void set_result(int64_t chunk, Product result);
  base::Digest digest_of_all() const;
  void find_reducible();
  Task sum_of(int64_t chunk);

  Setup setup_;
  FragmentStore& store_;
  std::optional<int64_t> self_index_;
  uint32_t attempt_ = 0;  // Of the round: the newest Open or Reown.
  ContributorMask excluded_ = 0;
  Plan plan_;
  // Of each chunk, fixed until it is moved.
  std::vector<ContributorMask> children_;
  std::vector<Chunk> chunks_;
  std::vector<Bytes> ours_;  // Our parts that are in sums, or may be.
  std::set<int64_t> reducible_;
  std::deque<Task> checks_;
  int64_t result_count_ = 0;
  std::optional<base::Digest> digest_;
  bool is_digest_taken_ = false;
  bool has_new_results_ = false;
  int64_t bytes_sent_ = 0;
  int64_t bytes_received_ = 0;
};

}  // namespace net
