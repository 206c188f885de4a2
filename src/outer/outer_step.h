// What a round's result does to a fragment: first the outer step, which is the same on every node
// and whenever a node takes it, then, perhaps some inner steps later, the merge into the node's own
// parameters.
//
// With d the decoded mean, u = learning_rate * (d + momentum * m) the outer step's change (u = d in
// a short round), and b what this node sent, decoded, in chunks in which it was counted, else 0:
//
//   step      theta = theta - u
//   rebase    x = x - u + b          (LOSCAR-SGD, arXiv 2605.20866: x = theta + what was trained
//                                     since the contribution was made)
//   overwrite x = theta              where the node was counted, else as rebase
//   lerp      x = s*x + (1-s)*theta  where the node was counted, else as rebase (Streaming DiLoCo,
//                                     arXiv 2501.18512, section 2.2)
//
// With rebase, what the codec left out of the contribution stays in x, and so is in the next one:
// error feedback without a buffer.
//
// The trainer's thread.
#pragma once

#include "net/member.h"
#include "outer/codec.h"
#include "outer/local_slices.h"
#include "outer/outer_optimizer.h"

namespace outer {

class OuterStep {
 public:
  // Arguments outlive the object.
  OuterStep(const OuterConfig& config, CodecPair codecs, const LocalSlices& local)
      : config_(config), codecs_(codecs), local_(local) {}

  // Changes parameters and momentum, and leaves in the record what merge() needs. The digest of the
  // new state is not made here. REQUIRES: what the step before left is merged.
  void step(FragmentRecord& record, const net::Committed& commit) const;
  // What step() did to a slice of the parameters and of the momentum elsewhere. `round` is the
  // version that it made; `chunks` are those with elements of the slice, in their order.
  void replay(FragmentRecord& record, int64_t fragment, Slice slice, uint64_t round,
              std::span<const net::FragmentStore::PastChunk> chunks) const;
  // REQUIRES: there is something to merge.
  void merge(FragmentRecord& record, Merge how) const;

  // For checkpoints, as OuterState says.
  static OuterState::Unmerged save(const FragmentRecord& record);
  void restore(FragmentRecord& record, const OuterState::Unmerged& saved) const;

 private:
  OuterOptimizer optimizer_of(uint64_t round) const;
  double mean_rms_max(const FragmentRecord& record) const;
  bool step_chunk(FragmentRecord& record, int64_t chunk, std::span<const std::byte> encoded,
                  double mean_rms_max) const;
  template <class Body>
  void for_each_piece(const FragmentRecord& record, int64_t chunk, Slice part,
                      std::span<const std::byte> encoded, const Body& body) const;
  bool is_short(int64_t fragment, uint64_t step) const;
  static void step_piece(const UnmergedRound& round, std::span<const float> mean,
                         std::span<float> parameters, std::span<float> momentum);
  static bool is_far_from_infinity(const FragmentRecord& record, int64_t chunk, double mean_norm);
  bool would_be_finite(const FragmentRecord& record, int64_t chunk,
                       std::span<const std::byte> encoded) const;
  void merge_chunk(const FragmentRecord& record, int64_t chunk, Merge how,
                   std::span<float> scratch) const;
  void rebase(const FragmentRecord& record, int64_t chunk, std::span<float> scratch) const;
  void change_of(const FragmentRecord& record, int64_t chunk, Slice elements, Piece piece,
                 std::span<float> change) const;
  void heal(const FragmentRecord& record, Slice slice, std::span<float> scratch) const;

  const OuterConfig& config_;
  const CodecPair codecs_;
  const LocalSlices& local_;
};

}  // namespace outer
