#include "outer/state_digest.h"

#include <algorithm>
#include <vector>

#include "base/math.h"

namespace outer {

base::Digest state_digest(const StateView& state, base::ThreadPool& pool) {
  constexpr int64_t kPieceElements = base::kMiB / int64_t{sizeof(float)};
  const int64_t count = int64_t(state.parameters.size());
  const int64_t pieces = base::div_ceil(count, kPieceElements);
  std::vector<base::Digest> digests(static_cast<size_t>(2 * pieces));
  pool.parallel_items(2 * pieces, [&](int64_t index, int) {
    const std::span<const float> all = index < pieces ? state.parameters : state.momentum;
    const int64_t first = index % pieces * kPieceElements;
    const int64_t piece_elements = std::min(kPieceElements, count - first);
    digests[size_t(index)] =
        base::sha256(std::as_bytes(all.subspan(size_t(first), size_t(piece_elements))));
  });
  // Little endian, like everything that peers compare.
  const uint64_t header[2] = {state.version, uint64_t(state.fragment)};
  base::Sha256 whole;
  whole.update(std::as_bytes(std::span(header)));
  whole.update(std::as_bytes(std::span(digests)));
  return whole.finish();
}

}  // namespace outer
