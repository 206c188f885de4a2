// One fragment's state on its way to the version in force, block by block. Donors hold nothing
// back: each block comes at whatever version its donor has, and is brought on from there by the
// results of the rounds since, because the outer step is elementwise. So a state that moves on in
// the middle of a transfer costs the results of a round, not the transfer.
//
//   absent --block of version v--> v --all results of round v + 1--> v + 1 --> ... --> target
//     ^                            |
//     +---- results are gone ------+
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "net/fragment_store.h"

namespace net {

class FragmentCatchUp {
 public:
  // `store` outlives the object.
  FragmentCatchUp(FragmentStore& store, int64_t fragment);

  uint64_t target() const { return target_; }
  // Begins, with the node's own state of this version in all blocks; kNoVersion: with none.
  void start(uint64_t target, uint64_t own_version);
  // Another version is in force. Blocks that are beyond it, or for which the results would be more
  // bytes than they are themselves, are absent again. Returns how many those are.
  int64_t retarget(uint64_t target);
  bool is_complete() const { return at_target_count_ == int64_t(versions_.size()); }
  int64_t present_count() const;

  struct Need {
    std::vector<int64_t> blocks;
    struct Result {
      uint64_t round = 0;
      int64_t chunk = 0;
      auto operator<=>(const Result&) const = default;
    };
    std::vector<Result> results;
  };
  Need need() const;
  Need need_of(int64_t block) const;
  bool needs(const Need::Result& result) const;

  // A block is in the store now. `version` is at least oldest().
  void take_block(int64_t block, uint64_t version);
  // Blocks below it are not worth having.
  uint64_t oldest() const;
  // Replays what has become possible. A failure is of the store; the block is then absent.
  void take_result(const Need::Result& name, FragmentStore::PastChunk result);
  // Nobody has results of this round any more: blocks that need them are absent. Returns how many.
  int64_t lose_results(uint64_t round);
  // They are wrong.
  void drop(const std::vector<int64_t>& blocks);

 private:
  struct Range {
    int64_t begin = 0, end = 0;
  };
  Range chunks_of(int64_t block) const;
  Range blocks_of(int64_t chunk) const;
  bool is_there(int64_t block) const { return versions_[size_t(block)] != kNoVersion; }
  void set(int64_t block, uint64_t version);
  void replay(int64_t block);
  void forget_used(Range chunks);
  template <class Condition>
  int64_t drop_if(const Condition& is_void);

  FragmentStore& store_;
  const int64_t fragment_;
  const FragmentStore::Cut cut_;
  const int64_t rounds_max_;
  uint64_t target_ = 0;
  std::vector<uint64_t> versions_;  // Per block.
  int64_t at_target_count_ = 0;
  // By chunk and round: of which a block has need.
  std::map<int64_t, std::map<uint64_t, FragmentStore::PastChunk>> results_;
};

}  // namespace net
