// What a member asks of whoever owns the numbers (outer/). net moves bytes and decides; it never
// looks into them.
//
// Chunks cut a fragment for the all-reduce, blocks cut its state for joiners.
//
// Threads: everything is called on the host's loop thread. encode_contribution only between Ready
// and the round's end, while the trainer is waiting or has snapshotted, and more than once for a
// chunk that must be sent again; the owner arranges the rest (see read_block).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "net/message.h"

namespace net {

class FragmentStore {
 public:
  virtual ~FragmentStore() = default;

  virtual int64_t fragment_count() const = 0;
  virtual int64_t chunk_count(int64_t fragment) const = 0;

  // This node's pseudo-gradient of one chunk, encoded.
  virtual std::vector<std::byte> encode_contribution(int64_t fragment, int64_t chunk) = 0;

  struct Part {
    PeerId peer = kNobody;
    int64_t weight_tokens = 0;
    Bytes bytes;  // Whole payload of the message; the encoded chunk begins at `offset`.
    int64_t offset = 0;
    std::span<const std::byte> encoded() const { return std::span(*bytes).subspan(size_t(offset)); }
  };
  // Is this an encoded chunk of the right size with finite numbers?
  virtual base::Result<void> check(int64_t fragment, int64_t chunk,
                                   std::span<const std::byte> encoded) const = 0;
  // Mean of the parts, weighted by tokens (all weights 0: the plain mean), summed in fp32 in the
  // given order (by peer), and encoded once. Parts that would spoil it may be left out: they have
  // no weight in it. At least one is in. REQUIRES: every part passed check().
  struct Mean {
    std::vector<std::byte> encoded;
    std::vector<PeerId> left_out;
  };
  virtual Mean reduce(int64_t fragment, int64_t chunk, std::span<const Part> parts) = 0;

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
};

}  // namespace net
