#include "outer/state_transfer.h"

#include <algorithm>
#include <set>

#include "outer/codec.h"

namespace outer {

std::optional<net::FragmentStore::StateBlock> read_block(FragmentRecord& r, int64_t block) {
  CHECK(block >= 0 && block < r.block_count());
  std::unique_lock lock(r.mutex, std::try_to_lock);
  if (!lock.owns_lock() || r.is_being_replaced) return std::nullopt;
  const std::span<const std::byte> parameters =
      std::as_bytes(part_of(r.parameters, r.block(block)));
  const std::span<const std::byte> momentum = std::as_bytes(part_of(r.momentum, r.block(block)));
  net::FragmentStore::StateBlock out{.version = r.state.version, .bytes = {}};
  out.bytes.reserve(parameters.size() + momentum.size());
  out.bytes.insert(out.bytes.end(), parameters.begin(), parameters.end());
  out.bytes.insert(out.bytes.end(), momentum.begin(), momentum.end());
  return out;
}

base::Result<void> write_block(FragmentRecord& r, int64_t fragment, int64_t block,
                               std::span<const std::byte> bytes) {
  CHECK(block >= 0 && block < r.block_count());
  const std::span<float> parameters = part_of(r.parameters, r.block(block));
  const std::span<float> momentum = part_of(r.momentum, r.block(block));
  if (bytes.size() != 2 * parameters.size_bytes()) {
    return base::Failure{fmt::format("state block {} of fragment {}: expected {} bytes, found {}",
                                     block, fragment, 2 * parameters.size_bytes(), bytes.size())};
  }
  std::vector<float> values(2 * parameters.size());  // The bytes need not be aligned.
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(values)).begin());
  if (!all_finite(values)) {
    return base::Failure{
        fmt::format("state block {} of fragment {}: a value is not finite", block, fragment)};
  }
  std::lock_guard lock(r.mutex);
  if (!r.is_being_replaced) {
    return base::Failure{
        fmt::format("state block {} of fragment {}: nobody waits for it", block, fragment)};
  }
  std::copy_n(values.begin(), parameters.size(), parameters.begin());
  std::copy_n(values.begin() + int64_t(parameters.size()), momentum.size(), momentum.begin());
  return {};
}

std::optional<std::vector<std::byte>> digests(FragmentRecord& r, uint64_t version) {
  std::unique_lock lock(r.mutex, std::try_to_lock);
  if (!lock.owns_lock() || r.is_being_replaced) return std::nullopt;
  if (r.state.version != version || r.state.digest.is_zero()) return std::nullopt;
  const auto bytes = std::as_bytes(std::span(r.pieces));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

base::Result<std::vector<int64_t>> wrong_blocks(FragmentRecord& r, int64_t fragment,
                                                const net::FragmentState& expected,
                                                std::span<const std::byte> digests) {
  constexpr int64_t kBlocksPerPiece = kPieceFloats / kBlockElements;
  std::lock_guard lock(r.mutex);
  std::vector<base::Digest> right(r.pieces.size());
  const auto bytes = std::as_writable_bytes(std::span(right));
  if (digests.size() != bytes.size()) return base::Failure{"digests of another state"};
  std::ranges::copy(digests, bytes.begin());
  if (digest_of_pieces(expected.version, fragment, right) != expected.digest) {
    return base::Failure{fmt::format("these digests do not make that of version {} of fragment {}",
                                     expected.version, fragment)};
  }
  std::set<int64_t> wrong;
  const auto pieces = int64_t(right.size()) / 2;
  for (int64_t i = 0; i < 2 * pieces; ++i) {
    if (right[size_t(i)] == r.pieces[size_t(i)]) continue;
    const int64_t first = i % pieces * kBlocksPerPiece;
    const int64_t end = std::min(first + kBlocksPerPiece, r.block_count());
    for (int64_t block = first; block < end; ++block) wrong.insert(block);
  }
  return std::vector<int64_t>(wrong.begin(), wrong.end());
}

}  // namespace outer
