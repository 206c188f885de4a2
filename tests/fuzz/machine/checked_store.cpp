#include "fuzz/machine/checked_store.h"

#include <cstring>

#include "base/error.h"

namespace net {
namespace {

constexpr uint64_t kOurs = 100;

void check_place(int64_t fragment, int64_t index, int64_t count) {
  CHECK(fragment >= 0 && fragment < kFuzzFragments, "fragment {}", fragment);
  CHECK(index >= 0 && index < count, "chunk or block {}", index);
}

}  // namespace

std::vector<std::byte> CheckedStore::encoded(uint64_t number) const {
  std::vector<std::byte> bytes(sizeof(number) + size_t(padding_bytes_));
  std::memcpy(bytes.data(), &number, sizeof(number));
  return bytes;
}

Bytes CheckedStore::contribution(int64_t fragment, int64_t chunk) {
  check_place(fragment, chunk, kFuzzChunks);
  if (!frozen.contains(fragment)) return nullptr;
  return contribution_from(kOurs).payloads[size_t(chunk)];
}

base::Digest CheckedStore::contribution_root(int64_t fragment) const {
  check_place(fragment, 0, kFuzzChunks);
  return frozen.contains(fragment) ? contribution_from(kOurs).root : base::Digest{};
}

SealedContribution CheckedStore::contribution_from(uint64_t first) const {
  std::vector<std::vector<std::byte>> chunks;
  for (uint64_t chunk = 0; chunk < uint64_t(kFuzzChunks); ++chunk)
    chunks.push_back(encoded(first + chunk));
  return sealed(chunks);
}

base::Result<void> CheckedStore::check_contribution(int64_t fragment, int64_t chunk,
                                                    std::span<const std::byte> bytes) const {
  check_place(fragment, chunk, kFuzzChunks);
  if (bytes.size() != sizeof(uint64_t) + size_t(padding_bytes_))
    return base::Failure{"a chunk of another size"};
  return {};
}

base::Result<void> CheckedStore::check_result(int64_t fragment, int64_t chunk,
                                              std::span<const std::byte> bytes) const {
  return check_contribution(fragment, chunk, bytes);
}

FragmentStore::Mean CheckedStore::reduce(int64_t fragment, int64_t chunk,
                                         std::span<const Part> parts) {
  CHECK(!parts.empty());
  Mean mean;
  uint64_t sum = 0;
  for (const Part& part : parts) {
    CHECK(&part == &parts.front() || part.peer > (&part)[-1].peer, "out of order");
    CHECK(check_contribution(fragment, chunk, part.encoded()).ok(), "a part that was not checked");
    if (part.peer == left_out && parts.size() > 1) {
      mean.left_out.push_back(part.peer);
      continue;
    }
    uint64_t number = 0;
    std::memcpy(&number, part.encoded().data(), sizeof(number));
    sum += number;
  }
  mean.encoded = encoded(sum);
  return mean;
}

std::optional<FragmentStore::Mean> CheckedStore::repeat(int64_t fragment, uint64_t, int64_t chunk,
                                                        std::span<const Part> parts) {
  return reduce(fragment, chunk, parts);
}

std::optional<FragmentStore::StateBlock> CheckedStore::read_block(int64_t fragment, int64_t block) {
  check_place(fragment, block, kFuzzBlocks);
  if (is_changing) return std::nullopt;
  return StateBlock{.version = version[fragment], .bytes = encoded(uint64_t(block))};
}

base::Result<void> CheckedStore::write_block(int64_t fragment, int64_t block,
                                             std::span<const std::byte> bytes) {
  check_place(fragment, block, kFuzzBlocks);
  CHECK(is_writable, "block {} is written and nobody has allowed it", block);
  if (bytes.size() != sizeof(uint64_t) + size_t(padding_bytes_))
    return base::Failure{"a block of another size"};
  return {};
}

std::optional<std::vector<std::byte>> CheckedStore::digests(int64_t fragment, uint64_t of) {
  check_place(fragment, 0, kFuzzBlocks);
  if (is_changing || of != version[fragment]) return std::nullopt;
  return encoded(of);
}

base::Result<std::vector<int64_t>> CheckedStore::wrong_blocks(int64_t fragment,
                                                              const FragmentState&,
                                                              std::span<const std::byte> digests) {
  check_place(fragment, 0, kFuzzBlocks);
  if (digests.size() != sizeof(uint64_t) + size_t(padding_bytes_))
    return base::Failure{"digests of another state"};
  std::vector<int64_t> wrong;
  for (int64_t block = 0; block < kFuzzBlocks; ++block) {
    if ((int(digests[0]) >> block & 1) != 0) wrong.push_back(block);
  }
  return wrong;
}

std::optional<FragmentStore::PastChunk> CheckedStore::past_chunk(int64_t fragment, uint64_t round,
                                                                 int64_t chunk) {
  check_place(fragment, chunk, kFuzzChunks);
  if (round > version[fragment] || round + 4 <= version[fragment]) return std::nullopt;
  return PastChunk{.step = round, .is_refused = true, .result = {}};
}

base::Result<void> CheckedStore::replay_block(int64_t fragment, int64_t block, uint64_t,
                                              std::span<const PastChunk> chunks) {
  check_place(fragment, block, kFuzzBlocks);
  CHECK(is_writable, "block {} is replayed and nobody has allowed it", block);
  CHECK(chunks.size() == 1, "{} chunks for a block", chunks.size());
  const PastChunk& chunk = chunks.front();
  CHECK(chunk.is_refused || check_result(fragment, block, chunk.result.encoded()).ok(),
        "a result that was not checked");
  return {};
}

}  // namespace net
