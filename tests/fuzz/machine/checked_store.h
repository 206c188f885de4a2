// A store that holds a member to what it may ask of it. A chunk is one number, and so is a block.
#pragma once

#include <map>
#include <set>

#include "fuzz/machine/messages.h"
#include "net/fragment_store.h"
#include "net/frozen.h"

namespace net {

class CheckedStore : public FragmentStore {
 public:
  // `padding_bytes` after each chunk and block.
  explicit CheckedStore(int64_t padding_bytes) : padding_bytes_(padding_bytes) {}

  int64_t fragment_count() const override { return kFuzzFragments; }
  int64_t chunk_count(int64_t) const override { return kFuzzChunks; }
  Bytes contribution(int64_t fragment, int64_t chunk) override;
  base::Digest contribution_root(int64_t fragment) const override;
  base::Result<void> check_contribution(int64_t fragment, int64_t chunk,
                                        std::span<const std::byte> encoded) const override;
  base::Result<void> check_result(int64_t fragment, int64_t chunk,
                                  std::span<const std::byte> encoded) const override;
  Mean reduce(int64_t fragment, int64_t chunk, std::span<const Part> parts) override;
  std::optional<Mean> repeat(int64_t fragment, uint64_t round, int64_t chunk,
                             std::span<const Part> parts) override;
  int64_t block_count(int64_t) const override { return kFuzzBlocks; }
  std::optional<StateBlock> read_block(int64_t fragment, int64_t block) override;
  base::Result<void> write_block(int64_t fragment, int64_t block,
                                 std::span<const std::byte> bytes) override;
  std::optional<std::vector<std::byte>> digests(int64_t fragment, uint64_t version) override;
  base::Result<std::vector<int64_t>> wrong_blocks(int64_t fragment, const FragmentState& expected,
                                                  std::span<const std::byte> digests) override;
  Cut cut(int64_t) const override {
    return {.elements = kFuzzChunks, .chunk_elements = 1, .block_elements = 1};
  }
  int64_t replay_rounds_max(int64_t) const override { return 4; }
  std::optional<PastChunk> past_chunk(int64_t fragment, uint64_t round, int64_t chunk) override;
  base::Result<void> replay_block(int64_t fragment, int64_t block, uint64_t round,
                                  std::span<const PastChunk> chunks) override;

  // One encoded chunk, or block.
  std::vector<std::byte> encoded(uint64_t number) const;
  // What somebody contributes whose chunks are `first` and the numbers behind it.
  SealedContribution contribution_from(uint64_t first) const;

  std::set<int64_t> frozen;             // Fragments.
  std::map<int64_t, uint64_t> version;  // That is applied.
  bool is_writable = false;
  bool is_changing = false;
  uint64_t left_out = kNobody;  // Of every sum, if others remain.

 private:
  const int64_t padding_bytes_;
};

}  // namespace net
