// The node's own parameters, seen as the elements of a fragment: those of its units, one after the
// other.
#pragma once

#include <functional>
#include <numeric>

#include "base/thread.h"
#include "outer/codec.h"
#include "outer/fragment_record.h"
#include "outer/outer_state.h"

namespace outer {

// Of a chunk, what one device can work on: a piece as codecs know it.
struct DevicePiece {
  int64_t unit = 0;
  int64_t first = 0;  // In the unit.
  Slice slice;
};

// Arguments outlive the object. The trainer's thread, which has the pool to itself.
class LocalSlices {
 public:
  LocalSlices(const shard::Layout& layout, LocalParameters& local, base::ThreadPool& pool)
      : layout_(layout), local_(local), pool_(pool) {
    const int64_t bytes = local.elements_at_a_time() * int64_t{sizeof(float)};
    scratch_ = local.allocate(pool.thread_count() * bytes);
  }

  void read(const FragmentRecord& record, Slice slice, std::span<float> values) const;
  void write(const FragmentRecord& record, Slice slice, std::span<const float> values) const;
  // See LocalParameters.
  void round(std::span<float> values) const { local_.round(values); }

  // body(chunk, scratch of local_.elements_at_a_time()) on all threads of the pool. Chunks that
  // come one after the other are far from each other in the fragment: where a node has several
  // ranks, in the shards of different ones, so that all ranks copy at the same time.
  template <class Body>
  void for_each_chunk(const FragmentRecord& record, const Body& body) const {
    const int64_t count = record.chunk_count();
    int64_t stride = std::max<int64_t>(1, count * 3 / 8);
    while (std::gcd(stride, count) != 1) ++stride;
    pool_.parallel_items(count, [&](int64_t index, int worker) {
      const int64_t elements = local_.elements_at_a_time();
      const std::span<float> scratch(static_cast<float*>(scratch_->data()) + worker * elements,
                                     size_t(elements));
      body(index * stride % count, scratch);
    });
  }

  // Cuts a chunk into what devices can work on, for a codec that they know or may not know, and the
  // rest.
  void for_each_part(const FragmentRecord& record, Slice chunk, const Codec& codec,
                     const std::function<void(const DevicePiece&)>& on_device,
                     const std::function<void(Slice)>& on_host) const;
  // As LocalParameters says; `encoded` is the whole chunk's.
  bool encode_difference(const DevicePiece& piece, Slice chunk, std::span<const float> outer,
                         const Codec& codec, std::span<std::byte> encoded) const;
  // `encoded` may be empty.
  void add(const DevicePiece& piece, Slice chunk, std::span<const float> change, const Codec& codec,
           std::span<const std::byte> encoded) const;

  // Goes through a slice by as many elements as are best read at a time: body(slice, their values).
  template <class Body>
  void for_each_read(const FragmentRecord& record, Slice slice, std::span<float> scratch,
                     const Body& body) const {
    for (int64_t first = 0; first < slice.count; first += int64_t(scratch.size())) {
      const int64_t count = std::min(int64_t(scratch.size()), slice.count - first);
      const Slice part{.first = slice.first + first, .count = count};
      const std::span<float> values = scratch.first(size_t(count));
      read(record, part, values);
      body(part, values);
    }
  }

  // Changes a part of a chunk: change(elements of the fragment, piece of the chunk, their values).
  // One pass over memory.
  template <class Change>
  void update(const FragmentRecord& record, Slice chunk, Slice part, std::span<float> scratch,
              const Change& change) const {
    for_each_read(record, part, scratch, [&](Slice read, std::span<float> values) {
      for_each_piece(chunk, read, values, change);
      write(record, read, values);
    });
  }

  // body(elements of the fragment, piece of the chunk, their values) for as many as a core's
  // nearest cache holds.
  template <class Body>
  static void for_each_piece(Slice chunk, Slice part, std::span<float> values, const Body& body) {
    for (int64_t first = 0; first < part.count; first += kPieceElements) {
      const Slice slice{.first = part.first + first,
                        .count = std::min(kPieceElements, part.count - first)};
      body(slice, Piece{.first = slice.first - chunk.first, .chunk_elements = chunk.count},
           values.subspan(size_t(first), size_t(slice.count)));
    }
  }

  // local = merge(local, outer), over all threads.
  template <class Body>
  void update(const FragmentRecord& record, const Body& merge) const {
    for_each_chunk(record, [&](int64_t chunk, std::span<float> scratch) {
      update(record, record.chunk(chunk), record.chunk(chunk), scratch,
             [&](Slice slice, Piece, std::span<float> values) {
               merge(values, std::span<const float>(part_of(record.parameters, slice)));
             });
    });
  }

  bool is_finite(const FragmentRecord& record) const;

 private:
  template <class Body>
  void for_each_unit_piece(const FragmentRecord& record, Slice slice, const Body& body) const;

  const shard::Layout& layout_;
  LocalParameters& local_;
  base::ThreadPool& pool_;
  std::unique_ptr<backend::Buffer> scratch_;  // A part for each worker of the pool.
};

inline void subtract(std::span<float> from, std::span<const float> what) {
  for (size_t i = 0; i < from.size(); ++i) from[i] = from[i] - what[i];
}

inline void add(std::span<float> to, std::span<const float> what) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = to[i] + what[i];
}

}  // namespace outer
