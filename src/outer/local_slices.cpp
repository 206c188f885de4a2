#include "outer/local_slices.h"

#include <algorithm>
#include <atomic>

namespace outer {

// Calls body(unit, first element in the unit, the piece as a slice of `slice`).
template <class Body>
void LocalSlices::for_each_unit_piece(const FragmentRecord& record, Slice slice,
                                      const Body& body) const {
  int64_t unit_begin = 0;  // In elements of the fragment.
  for (const int64_t unit : record.fragment.units) {
    const int64_t unit_end = unit_begin + layout_.units[size_t(unit)].element_count;
    const int64_t begin = std::max(unit_begin, slice.first);
    const int64_t end = std::min(unit_end, slice.first + slice.count);
    if (begin < end) {
      body(unit, begin - unit_begin, Slice{.first = begin - slice.first, .count = end - begin});
    }
    unit_begin = unit_end;
  }
}

void LocalSlices::read(const FragmentRecord& record, Slice slice, std::span<float> values) const {
  for_each_unit_piece(record, slice, [&](int64_t unit, int64_t first, Slice piece) {
    local_.read(unit, first, part_of(values, piece));
  });
}

void LocalSlices::write(const FragmentRecord& record, Slice slice,
                        std::span<const float> values) const {
  for_each_unit_piece(record, slice, [&](int64_t unit, int64_t first, Slice piece) {
    local_.write(unit, first, values.subspan(size_t(piece.first), size_t(piece.count)));
  });
}

void LocalSlices::for_each_part(const FragmentRecord& record, Slice chunk, const Codec& codec,
                                const std::function<void(const DevicePiece&)>& on_device,
                                const std::function<void(Slice)>& on_host) const {
  int64_t done = 0;  // Elements of the chunk.
  const auto host_until = [&](int64_t end) {
    if (done < end) on_host({.first = chunk.first + done, .count = end - done});
    done = end;
  };
  for_each_unit_piece(record, chunk, [&](int64_t unit, int64_t first, Slice piece) {
    if (!codec.on_device()) return;
    for (const auto& range : local_.device_ranges(unit, {.first = first, .count = piece.count})) {
      const int64_t in_chunk = piece.first - first;  // Of the unit's first element.
      const int64_t begin = base::round_up(in_chunk + range.first, kPieceElements);
      int64_t end = in_chunk + range.first + range.count;
      if (end < chunk.count) end -= end % kPieceElements;
      if (begin >= end) continue;
      host_until(begin);
      on_device({.unit = unit,
                 .first = begin - in_chunk,
                 .slice = {.first = chunk.first + begin, .count = end - begin}});
      done = end;
    }
  });
  host_until(chunk.count);
}

namespace {

template <class Byte>
LocalParameters::Blocks<Byte> blocks_of(Slice piece, Slice chunk, const Codec& codec,
                                        std::span<Byte> encoded) {
  const auto bytes = codec.bytes_of(
      {.first = piece.first - chunk.first, .chunk_elements = chunk.count}, piece.count);
  return {.codec = *codec.on_device(),
          .headers = encoded.subspan(size_t(bytes.first_header), size_t(bytes.header_bytes)),
          .codes = encoded.subspan(size_t(bytes.first_code), size_t(bytes.code_bytes))};
}

}  // namespace

bool LocalSlices::encode_difference(const DevicePiece& piece, Slice chunk,
                                    std::span<const float> outer, const Codec& codec,
                                    std::span<std::byte> encoded) const {
  return local_.encode_difference(piece.unit, piece.first, outer,
                                  blocks_of(piece.slice, chunk, codec, encoded));
}

void LocalSlices::add(const DevicePiece& piece, Slice chunk, std::span<const float> change,
                      const Codec& codec, std::span<const std::byte> encoded) const {
  if (encoded.empty()) return local_.add(piece.unit, piece.first, change, nullptr);
  const auto blocks = blocks_of(piece.slice, chunk, codec, encoded);
  local_.add(piece.unit, piece.first, change, &blocks);
}

bool LocalSlices::is_finite(const FragmentRecord& record) const {
  std::atomic<bool> is_finite = true;
  for_each_chunk(record, [&](int64_t chunk, std::span<float> scratch) {
    for_each_read(record, record.chunk(chunk), scratch, [&](Slice, std::span<float> values) {
      if (!all_finite(values)) is_finite = false;
    });
  });
  return is_finite;
}

}  // namespace outer
