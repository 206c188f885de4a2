// What a member asks of whoever owns the numbers (outer/). net moves bytes and decides; it never
// looks into them.
//
// Chunks cut a fragment for the all-reduce, blocks cut its state for joiners.
//
// Contributions are frozen bytes: made before ready() is said, and the same ones until the round is
// over, however often they are asked for. So nothing here reads what the trainer goes on changing.
//
// Threads: check_contribution, check_result, reduce and repeat are called by worker threads,
// several at once and at any time, even when the round is over; the rest on the host's loop thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "net/message.h"

namespace net {

// Before the encoded bytes of a contribution stand the message's kind and the path of their digest
// to the root of the hash tree (net/exchange/hash_tree.h) over all chunks: so many digests, of
// which those that a fragment's tree does not need are zero.
inline constexpr int64_t kPathLengthMax = 16;
inline constexpr int64_t kContributionOffset = 1 + kPathLengthMax * int64_t{sizeof(base::Digest)};
// A payload with room for so many encoded bytes behind kContributionOffset.
std::vector<std::byte> new_contribution(int64_t encoded_bytes);
// Of the encoded bytes.
base::Digest contribution_digest(std::span<const std::byte> payload);
// Writes the paths into all payloads of a fragment, in the order of their chunks, by these digests
// of theirs. Returns the root.
base::Digest seal_contributions(std::span<std::vector<std::byte>> payloads,
                                std::span<const base::Digest> digests);

class FragmentStore {
 public:
  virtual ~FragmentStore() = default;

  virtual int64_t fragment_count() const = 0;
  virtual int64_t chunk_count(int64_t fragment) const = 0;

  // This node's pseudo-gradient of one chunk, encoded: the whole payload of the message, begun by
  // new_contribution(). Null if nothing is frozen for the fragment (any more).
  virtual Bytes contribution(int64_t fragment, int64_t chunk) = 0;
  // What seal_contributions() made of all of them: the node is bound to it by saying ready. Zero if
  // nothing is frozen.
  virtual base::Digest contribution_root(int64_t fragment) const = 0;

  struct Part {
    PeerId peer = kNobody;
    int64_t weight_tokens = 0;
    Bytes bytes;  // Whole payload of the message; the encoded chunk begins at `offset`.
    int64_t offset = 0;
    bool is_subtotal = false;  // Encoded as a result: the mean of several contributions.
    std::span<const std::byte> encoded() const { return std::span(*bytes).subspan(size_t(offset)); }
  };
  // Is this an encoded chunk of the right size with finite numbers? Results may be encoded in
  // another way than contributions.
  virtual base::Result<void> check_contribution(int64_t fragment, int64_t chunk,
                                                std::span<const std::byte> encoded) const = 0;
  virtual base::Result<void> check_result(int64_t fragment, int64_t chunk,
                                          std::span<const std::byte> encoded) const = 0;
  // Mean of the parts, weighted by tokens (all weights 0: the plain mean), summed in fp32 in the
  // given order (by peer), and encoded once. Parts that would spoil it may be left out: they have
  // no weight in it. At least one is in. REQUIRES: every part passed check_contribution(), or,
  // where it is a subtotal, check_result().
  struct Mean {
    std::vector<std::byte> encoded;
    std::vector<PeerId> left_out;
  };
  virtual Mean reduce(int64_t fragment, int64_t chunk, std::span<const Part> parts) = 0;
  // What reduce() made of the same parts, on any node, in the round that makes version `round`:
  // before or after that is applied. Nothing if what it takes for that is not known any more.
  virtual std::optional<Mean> repeat(int64_t fragment, uint64_t round, int64_t chunk,
                                     std::span<const Part> parts) = 0;

  // Committed state, for joiners. read_block returns nothing while the state is being changed: ask
  // again later.
  struct StateBlock {
    uint64_t version = 0;
    std::vector<std::byte> bytes;
  };
  virtual int64_t block_count(int64_t fragment) const = 0;
  virtual std::optional<StateBlock> read_block(int64_t fragment, int64_t block) = 0;
  // Stores a fetched block. The fragment's state is unusable until all blocks are there and the
  // digest was compared.
  virtual base::Result<void> write_block(int64_t fragment, int64_t block,
                                         std::span<const std::byte> bytes) = 0;

  // What the digest of the state of this version is made of, as it travels. Nothing if the state is
  // not of this version, or its digest is still being made.
  virtual std::optional<std::vector<std::byte>> digests(int64_t /*fragment*/,
                                                        uint64_t /*version*/) {
    return std::nullopt;
  }
  // Where the state that was found last not to be `expected` differs from what is. Fails if
  // `digests` are not what makes the expected one.
  virtual base::Result<std::vector<int64_t>> wrong_blocks(int64_t /*fragment*/,
                                                          const FragmentState& /*expected*/,
                                                          std::span<const std::byte> /*digests*/) {
    return base::Failure{"this node cannot compare digests"};
  }

  // The results of the last rounds, which bring an older state up to date: applying a round changes
  // an element by that element's state and result alone, and whether its chunk was refused. A store
  // need not keep any: then no block can be brought on.

  // Chunks and blocks cut the same elements, each into equal parts of which the last may be
  // smaller.
  struct Cut {
    int64_t elements = 1;
    int64_t chunk_elements = 1;
    int64_t block_elements = 1;
  };
  virtual Cut cut(int64_t /*fragment*/) const { return {}; }
  // The results of so many rounds are no more bytes than the state.
  virtual int64_t replay_rounds_max(int64_t /*fragment*/) const { return 0; }
  // What a round did to a chunk.
  struct PastChunk {
    uint64_t step = 0;        // The round's global step.
    bool is_refused = false;  // It changed nothing, and there are no bytes.
    Part result;
  };
  // Of the round that made this version. Nothing if it is not kept, or not applied yet.
  virtual std::optional<PastChunk> past_chunk(int64_t /*fragment*/, uint64_t /*round*/,
                                              int64_t /*chunk*/) {
    return std::nullopt;
  }
  // Brings a block that was written, or was there when the state began to be replaced, from the
  // version before `round` to it. `chunks` are those that have elements in common with the block,
  // in their order; what is not refused passed check_result().
  virtual base::Result<void> replay_block(int64_t /*fragment*/, int64_t /*block*/,
                                          uint64_t /*round*/,
                                          std::span<const PastChunk> /*chunks*/) {
    return base::Failure{"this node cannot replay"};
  }
};

}  // namespace net
