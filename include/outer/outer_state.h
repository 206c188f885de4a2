// The outer parameters and the outer momentum, which have the same bits on every peer after each
// commit, and everything that touches them: encoding the pseudo-gradient, reducing, applying,
// hashing, handing the state to a joiner.
//
// Outer optimiser, elementwise in fp32, each operation rounded (no contraction), the same on every
// machine:
//   m = momentum * m + d;  theta = theta - learning_rate * (d + momentum * m)
// with d the decoded mean pseudo-gradient (DiLoCo, Douillard et al. 2023, arXiv 2311.08105,
// algorithm 1, with Nesterov as PyTorch's SGD defines it). A round over fewer than H steps
// (steps_covered) takes the mean of the nodes' parameters as it is, theta = theta - d, and leaves
// the momentum alone: a whole step of the momentum would move farther than its few steps did.
//
// What no node should be able to do to the others:
//   - A contribution reaches so far as ReachRule (outer/chunk_mean.h) lets it. The embedding moves
//     only where its tokens occurred, so that honest nodes differ there: there a contribution may
//     always be as long as the parameters.
//   - A mean that is absurd (its RMS is beyond contribution_norm_max^2 times that of the fragment's
//     parameters), or after whose step a number would not be finite, is refused: its chunk stays as
//     it is, on every node alike, and the nodes keep their own progress in it.
//
// Memory: 8 bytes per parameter, the encoded bytes of what is in flight twice (what this node sent
// and what came back) and of the last rounds' results, and scratch of
// LocalParameters::elements_at_a_time() per thread.
//
// Threads: contribution(), check_contribution(), check_result(), reduce(), and what is for those
// who catch up (read_block() to replay_block()) may be called by any threads, several at once,
// beside the trainer's. The trainer's thread calls the rest, for which it has the pool to itself.
// Only it touches the local parameters. A lock covers each fragment, and is held for as long as it
// takes to find or copy something; the trainer holds it for a whole outer step. Whoever asks for a
// contribution meanwhile waits; read_block answers "not now".
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <vector>

#include "backend/device.h"
#include "base/hash.h"
#include "base/thread.h"
#include "net/fragment_store.h"
#include "net/member.h"
#include "outer/config.h"
#include "outer/fragments.h"
#include "shard/layout.h"

namespace outer {

// The node's own parameters (inner masters), by canonical element of a unit. Implemented over
// shard::Parameters of all ranks. Called while the trainer is inside a call of OuterState or
// OuterLoop, by several threads of its pool at once, which never touch the same elements. Threads
// that work at the same time work far from each other, so that with several ranks each is busy.
class LocalParameters {
 public:
  virtual ~LocalParameters() = default;
  virtual void read(int64_t unit, int64_t first, std::span<float> elements) = 0;
  virtual void write(int64_t unit, int64_t first, std::span<const float> elements) = 0;
  // What write() followed by read() would make of them: not the same where the node keeps its
  // parameters in bf16. The pseudo-gradient is the difference to the rounded outer parameters, or
  // every round would pull them towards the numbers that bf16 knows.
  virtual void round(std::span<float>) const {}
  // How many elements are best read or written at a time, a multiple of 4096: as few as stay in a
  // core's caches, or more where a call takes as long as copying them does.
  virtual int64_t elements_at_a_time() const { return 16'384; }
  // Zero-filled memory for the outer state, from and to which read() and write() are quick: pinned
  // where there is a GPU. By default, from the heap.
  virtual std::unique_ptr<backend::Buffer> allocate(int64_t byte_count);

  // What a device does itself, so that parameters need not cross the bus to be encoded or merged.
  // By default there is none, and the rest is never called.
  struct Range {  // Elements of a unit.
    int64_t first = 0, count = 0;
  };
  // The parts of a range that lie on one device each, in their order. What is not in them is read
  // and written.
  virtual std::vector<Range> device_ranges(int64_t /*unit*/, Range) const { return {}; }
  // Blocks of a range that begins with one (docs/formats/codecs.md).
  enum class DeviceCodec { kInt8, kInt4 };
  template <class Byte>
  struct Blocks {
    DeviceCodec codec = DeviceCodec::kInt8;
    std::span<Byte> headers, codes;
  };
  // Of at most kDeviceElements, in one of device_ranges(), with `outer` and `change` in memory of
  // allocate(). The bits are those that reading, computing on the host and writing would give.
  static constexpr int64_t kDeviceElements = 1 << 20;
  // blocks = rounded outer - local. False: a number is not finite, and the bytes mean nothing.
  virtual bool encode_difference(int64_t unit, int64_t first, std::span<const float> outer,
                                 const Blocks<std::byte>& blocks);
  // local = local + change, and then + what is in the blocks, if there are any.
  virtual void add(int64_t unit, int64_t first, std::span<const float> change,
                   const Blocks<const std::byte>* blocks);
};

// What becomes of the node's own parameters when a round's result is merged into them. In chunks in
// which our contribution was not counted, all but kReplace keep our progress whole for the next
// round: local += new outer - old outer.
enum class Merge {
  kRebase,     // local += new outer - old outer + what we sent: what we did since then is kept.
  kOverwrite,  // local = new outer. What we did since is dropped.
  kLerp,       // local = share * local + (1 - share) * new outer.
  kReplace,    // local = new outer in all chunks: what we had was not fit to be kept.
};

// What was not as it should be in a fragment's round, as this node saw it.
struct RoundFindings {
  // Contributions that reached too far, in the chunks that this node summed.
  struct Outlier {
    net::PeerId peer = net::kNobody;
    int64_t shortened_chunks = 0;
    int64_t left_out_chunks = 0;  // It had no weight in them.
  };
  std::vector<Outlier> outliers;  // By peer.
  // What each contribution was in the chunks that this node summed.
  struct Influence {
    net::PeerId peer = net::kNobody;
    double norm = 0;    // Its length.
    double cosine = 0;  // Of the angle between it and the outer momentum; 0 where there is none.
    double share = 0;   // Of the mean: what of it is in the mean, along the mean. All are 1.
    double weight_share = 0;  // Of the tokens.
  };
  std::vector<Influence> influences;  // By peer.
  int64_t summed_chunks = 0;
  // The lengths of the mean and of the outer momentum in these chunks: with them, what several
  // nodes found can be put together.
  double mean_norm = 0, momentum_norm = 0;
  int64_t refused_chunks = 0;  // Of the round's result; the same on every node.
  double reduce_seconds = 0;   // That this node took to sum its chunks.
};

class OuterState : public net::FragmentStore {
 public:
  // A newcomer fetches results as they are made, so a few are enough; more are for those who were
  // away for a while.
  static constexpr int64_t kResultsKept = 4;

  // Starts at version 0 with outer parameters = local parameters and zero momentum. Arguments
  // outlive the object. The results of `results_kept` rounds of each fragment are kept for those
  // who catch up.
  static std::unique_ptr<OuterState> create(const OuterConfig& config, const shard::Layout& layout,
                                            LocalParameters& local, base::ThreadPool& pool,
                                            int64_t results_kept = kResultsKept);

  virtual const Fragment& fragment(int64_t index) const = 0;
  // Version and digest of each fragment. A digest that is still being made is finished with all
  // threads of the pool.
  virtual std::vector<net::FragmentState> states() const = 0;
  virtual net::FragmentState state(int64_t fragment) const = 0;
  virtual bool has_digest(int64_t fragment) const = 0;  // state() has nothing left to do.
  // That of the last step(), as soon as it is made.
  virtual std::shared_future<base::Digest> digest(int64_t fragment) const = 0;
  virtual uint64_t version(int64_t fragment) const = 0;

  virtual bool local_is_finite(int64_t fragment) = 0;

  // Makes the fragment's contribution, in bytes that stay as they are until step() of a round that
  // they are in, thaw(), or the next freeze(). False: the parameters are not finite or beyond what
  // the codec knows; zeros are frozen, which must have no weight. REQUIRES: the last result is
  // merged.
  virtual bool freeze(int64_t fragment) = 0;
  virtual void thaw(int64_t fragment) = 0;

  // Takes the outer step with the results of a commit and raises the version; the digest of the new
  // state is made by a thread of its own, while the trainer goes on. The local parameters stay as
  // they are until merge(). REQUIRES: commit.round == version + 1; the last result is merged.
  virtual void step(const net::Committed& commit) = 0;
  virtual bool has_unmerged(int64_t fragment) const = 0;
  // REQUIRES: there is something to merge.
  virtual void merge(int64_t fragment, Merge how) = 0;
  // Since the last call for this fragment.
  virtual RoundFindings take_findings(int64_t fragment) = 0;

  // Replacing the state by a peer's. REQUIRES: everything is merged. begin_replace() turns local
  // into (local - outer) where `keep_local_progress` (and does nothing while a replacement is going
  // on); then the net thread writes blocks; end_replace() compares the digests of all fragments
  // with `expected` (a zero digest is not compared) and on success turns local into (outer + kept
  // progress) and takes the versions over. On a mismatch it returns a Failure: fetch again. Local
  // is valid again only after success.
  virtual void begin_replace(bool keep_local_progress) = 0;
  virtual base::Result<void> end_replace(const std::vector<net::FragmentState>& expected) = 0;

  // Outer parameters and momentum: is there something that may be saved?
  virtual bool outer_is_finite(int64_t fragment) = 0;
  // For checkpoints: the flat fp32 state of a fragment. The trainer's thread only.
  virtual std::span<const float> outer_parameters(int64_t fragment) const = 0;
  virtual std::span<const float> outer_momentum(int64_t fragment) const = 0;
  // Takes a checkpoint's state; digests are computed and returned by states(). Local parameters are
  // left alone. Throws bad_input if a number is not finite.
  virtual void restore(int64_t fragment, uint64_t version, std::span<const float> parameters,
                       std::span<const float> momentum) = 0;
  // The frozen contribution: the encoded chunks one after the other; empty if there is none.
  virtual std::vector<std::byte> frozen(int64_t fragment) const = 0;
  // Throws bad_input for bytes that the codec could not have made.
  virtual void restore_frozen(int64_t fragment, std::span<const std::byte> encoded) = 0;
  // A round whose outer step is taken and whose result is not merged. REQUIRES: has_unmerged().
  struct Unmerged {
    bool is_short = false;
    std::vector<std::byte> results;  // Encoded chunks one after the other.
    std::vector<std::byte> ours;     // What this node sent, likewise; may be empty.
    std::vector<std::byte> flags;    // Per chunk: bit 0 ours was counted, bit 1 it was refused.
  };
  virtual Unmerged unmerged(int64_t fragment) const = 0;
  // Behind restore(). Throws bad_input for bytes that cannot be.
  virtual void restore_unmerged(int64_t fragment, const Unmerged& unmerged) = 0;
  // The frozen contribution was for a round whose result we have otherwise. What somebody has asked
  // for, or all where nothing is known of that (`is_all_counted`), is taken for counted: it is
  // taken out of our progress, and the rest stays in it. Thaws. False if nothing was asked for:
  // then nothing is changed.
  virtual bool settle_frozen(int64_t fragment, bool is_all_counted) = 0;
};

}  // namespace outer
