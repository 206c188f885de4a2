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
