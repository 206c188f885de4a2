#include "outer/state_summary.h"

#include <algorithm>

#include "outer/codec.h"
#include "outer/fragment_record.h"

namespace outer {

namespace {

std::span<const float> slice_of(std::span<const float> all, int64_t index, int64_t elements) {
  const Slice slice = slice_at(index, elements, int64_t(all.size()));
  return all.subspan(size_t(slice.first), size_t(slice.count));
}

}  // namespace

SummaryWork::SummaryWork(const StateView& state)
    : state_(state),
      digests_(size_t(2 * base::div_ceil(int64_t(state.parameters.size()), kPieceFloats))),
      squares_(size_t(base::div_ceil(int64_t(state.parameters.size()), state.chunk_elements))) {}

void SummaryWork::work() {
  for (int64_t item = next_++; item < item_count(); item = next_++) {
    make(item);
    if (++done_ == item_count()) {
      made_.set_value(digest_of_pieces(state_.version, state_.fragment, digests_));
    }
  }
}

void SummaryWork::make(int64_t item) {
  const auto pieces = int64_t(digests_.size());
  if (item < pieces) return hash_piece(item);
  const int64_t chunk = item - pieces;
  const auto squares = [&](std::span<const float> all) {
    return sum_of_squares(slice_of(all, chunk, state_.chunk_elements));
  };
  squares_[size_t(chunk)] = {.parameters = squares(state_.parameters),
                             .momentum = squares(state_.momentum)};
}

void SummaryWork::hash_piece(int64_t index) {
  const auto pieces = int64_t(digests_.size()) / 2;
  const std::span<const float> all = index < pieces ? state_.parameters : state_.momentum;
  digests_[size_t(index)] =
      base::sha256(std::as_bytes(slice_of(all, index % pieces, kPieceFloats)));
}

base::Digest digest_of_pieces(uint64_t version, int64_t fragment,
                              std::span<const base::Digest> pieces) {
  // Little endian, like everything that peers compare.
  const uint64_t header[2] = {version, uint64_t(fragment)};
  base::Sha256 whole;
  whole.update(std::as_bytes(std::span(header)));
  whole.update(std::as_bytes(pieces));
  return whole.finish();
}

}  // namespace outer
