// The node's own parameters, seen as the elements of a fragment: those of its units, one after the
// other.
#pragma once

#include <numeric>

#include "base/thread.h"
#include "outer/fragment_record.h"
#include "outer/outer_state.h"

namespace outer {

// Arguments outlive the object. The trainer's thread, which has the pool to itself.
class LocalSlices {
 public:
  LocalSlices(const shard::Layout& layout, LocalParameters& local, base::ThreadPool& pool)
      : layout_(layout), local_(local), pool_(pool) {}

  void read(const FragmentRecord& record, Slice slice, std::span<float> values) const;
  void write(const FragmentRecord& record, Slice slice, std::span<const float> values) const;
  // See LocalParameters.
  void round(std::span<float> values) const { local_.round(values); }

  // body(chunk) on all threads of the pool. Chunks that come one after the other are far from each
  // other in the fragment: where a node has several ranks, in the shards of different ones, so that
  // all ranks copy at the same time.
  template <class Body>
  void for_each_chunk(const FragmentRecord& record, const Body& body) const {
    const int64_t count = record.chunk_count();
    int64_t stride = std::max<int64_t>(1, count * 3 / 8);
    while (std::gcd(stride, count) != 1) ++stride;
    pool_.parallel_items(count, [&](int64_t index, int) { body(index * stride % count); });
  }

  // local = merge(local, outer), chunk by chunk over all threads.
  template <class Body>
  void update(const FragmentRecord& record, const Body& merge) const {
    for_each_chunk(record, [&](int64_t chunk) {
      const Slice slice = record.chunk(chunk);
      std::vector<float> values(static_cast<size_t>(slice.count));
      read(record, slice, values);
      merge(std::span<float>(values), std::span<const float>(part_of(record.parameters, slice)));
      write(record, slice, values);
    });
  }

  bool is_finite(const FragmentRecord& record) const;

 private:
  template <class Body>
  void for_each_unit_piece(const FragmentRecord& record, Slice slice, const Body& body) const;

  const shard::Layout& layout_;
  LocalParameters& local_;
  base::ThreadPool& pool_;
};

inline void subtract(std::span<float> from, std::span<const float> what) {
  for (size_t i = 0; i < from.size(); ++i) from[i] = from[i] - what[i];
}

inline void add(std::span<float> to, std::span<const float> what) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = to[i] + what[i];
}

}  // namespace outer
