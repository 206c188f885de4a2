// What the kernels of plain attention are made of.
//
// They have one form. A block owns a few rows (queries, or keys with their values), some for each
// warp, and keeps them in shared memory as fp32. It walks over the rows on the other side in tiles
// of 32. In products of two rows a lane stands for one row of the tile; in weighted sums of the
// tile's rows it stands for a slice of the head. So each number that is read from shared memory
// serves all rows of the warp, and nothing is summed across lanes but the softmax's total.
#pragma once

#include "cuda/launch.h"
#include "cuda/reduce.h"
#include "cuda/vector.h"

namespace cuda {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * kWarp;
inline constexpr int kTile = kWarp;  // Rows walked over at a time: one for each lane.

struct Geometry {
  int T, D, heads, kv_heads, group;
  int head_groups;       // B * K
  int64_t qkv_stride;    // Numbers from one position to the next.
  int64_t out_stride;    // Likewise.
  int chunks;            // Of 8 numbers in a head; zeros fill the last one.
  int row_threads_log2;  // Threads that copy a row, one chunk each: `chunks` or a little more.
  int tile_stride;       // In chunks. Odd, so that 8 rows' chunks lie in different banks.
  float scale;           // 1 / sqrt(D)
  bool is_aligned;       // Every row begins at a 16-byte address; otherwise at a 4-byte one.
};

// Rows of a tensor: positions of one head (group 1), or the stacked rows of a group of heads.
struct Rows {
  const Bf16* base;
  int64_t stride;  // From one position to the next.
  int group;
  int end;  // Rows from here on do not exist, and read as zeros.

  __device__ const Bf16* at(int row, int D) const {
    return base + row / group * stride + row % group * D;
  }
};

// In a row of the batch, a key/value head and the query heads that share it.
struct HeadGroup {
  int row, kv_head;

  __device__ HeadGroup(int index, const Geometry& g)
      : row(index / g.kv_heads), kv_head(index % g.kv_heads) {}

  __device__ int64_t query_offset(const Geometry& g) const {
    return row * g.T * g.qkv_stride + int64_t(kv_head) * g.group * g.D;
  }
  __device__ int64_t key_offset(const Geometry& g) const {
    return row * g.T * g.qkv_stride + int64_t(g.heads + kv_head) * g.D;
  }
  __device__ int64_t value_offset(const Geometry& g) const {
    return key_offset(g) + int64_t(g.kv_heads) * g.D;
  }
  __device__ int64_t out_offset(const Geometry& g) const {
    return row * g.T * g.out_stride + int64_t(kv_head) * g.group * g.D;
  }
  // Of head `head` of the group, in (B, H, T) and in (N, H).
  __device__ int64_t lse_index(int head, int position, const Geometry& g) const {
    return (int64_t(row) * g.heads + kv_head * g.group + head) * g.T + position;
  }
  __device__ int64_t delta_index(int head, int position, const Geometry& g) const {
    return (int64_t(row) * g.T + position) * g.heads + kv_head * g.group + head;
  }
  __device__ Rows queries(const Bf16* qkv, const Geometry& g) const {
    return {qkv + query_offset(g), g.qkv_stride, g.group, g.T * g.group};
  }
  __device__ Rows keys(const Bf16* qkv, const Geometry& g) const {
    return {qkv + key_offset(g), g.qkv_stride, 1, g.T};
  }
  __device__ Rows values(const Bf16* qkv, const Geometry& g) const {
    return {qkv + value_offset(g), g.qkv_stride, 1, g.T};
  }
};

__device__ inline uint4 load_chunk(const Bf16* row, int chunk, const Geometry& g) {
  if (g.is_aligned) return reinterpret_cast<const uint4*>(row)[chunk];
  const auto* pairs = reinterpret_cast<const unsigned*>(row) + 4 * chunk;
  const int left = g.D / 2 - 4 * chunk;
  return make_uint4(pairs[0], left > 1 ? pairs[1] : 0, left > 2 ? pairs[2] : 0,
                    left > 3 ? pairs[3] : 0);
}

// Calls body(row, chunk) for every chunk of `count` rows, on one thread of the block each.
template <class Body>
__device__ void for_chunks(int count, const Geometry& g, const Body& body) {
  const int chunk = int(threadIdx.x) & ((1 << g.row_threads_log2) - 1);
  if (chunk >= g.chunks) return;
  const int step = kThreads >> g.row_threads_log2;
  for (int row = int(threadIdx.x) >> g.row_threads_log2; row < count; row += step) body(row, chunk);
}

// A tile of the rows of one head, from `first` on.
__device__ inline void copy_tile(uint4* tile, const Rows& rows, int first, const Geometry& g) {
  for_chunks(kTile, g, [&](int row, int chunk) {
    const int from = first + row;
    tile[row * g.tile_stride + chunk] = from < rows.end
                                            ? load_chunk(rows.base + from * rows.stride, chunk, g)
                                            : make_uint4(0, 0, 0, 0);
  });
}

// The block's own rows, from `first` on, times a factor.
__device__ inline void copy_owned(float* owned, int count, const Rows& rows, int first,
                                  float factor, const Geometry& g) {
  for_chunks(count, g, [&](int row, int chunk) {
    const int from = first + row;
    Float8 values = {};
    if (from < rows.end) values = unpack(load_chunk(rows.at(from, g.D), chunk, g));
    for (int i = 0; i < kPack; ++i) values.at[i] *= factor;
    store8(owned + (row * g.chunks + chunk) * kPack, values);
  });
}

// One number for each row of a warp.
template <int kRows>
struct alignas(sizeof(float) * kRows) PerRow {
  float at[kRows];
};

// For each row of a warp (`owned`): its product with this lane's row of the tile.
template <int kRows>
__device__ PerRow<kRows> products(const float* owned, const uint4* tile, const Geometry& g) {
  const uint4* lanes_row = tile + int(threadIdx.x) % kWarp * g.tile_stride;
  PerRow<kRows> sums = {};
  for (int chunk = 0; chunk < g.chunks; ++chunk) {
    const Float8 x = unpack(lanes_row[chunk]);
    for (int r = 0; r < kRows; ++r) {
      const Float8 y = load8(owned + (r * g.chunks + chunk) * kPack);
      for (int i = 0; i < kPack; ++i) sums.at[r] += x.at[i] * y.at[i];
    }
  }
  return sums;
}

// For each row of a warp, this lane's slice of a head: the pairs of numbers lane + 32 p.
template <int kRows, int kPairs>
struct Slices {
  float2 at[kRows][kPairs] = {};

  // Adds the sum of the tile's rows, each times its weight for the warp's row.
  __device__ void add(const PerRow<kRows>* weights, const uint4* tile, const Geometry& g) {
    int pair[kPairs];  // Lanes behind the head's end do the last one's work once more.
    for (int p = 0; p < kPairs; ++p)
      pair[p] = min(int(threadIdx.x) % kWarp + p * kWarp, g.D / 2 - 1);
    const auto* words = reinterpret_cast<const unsigned*>(tile);
    for (int j = 0; j < kTile; ++j, words += 4 * g.tile_stride) {
      const PerRow<kRows> weight = weights[j];
      for (int p = 0; p < kPairs; ++p) {
        const unsigned bits = words[pair[p]];
        const float low = __uint_as_float(bits << 16), high = __uint_as_float(bits & 0xffff0000u);
        for (int r = 0; r < kRows; ++r) {
          at[r][p].x += weight.at[r] * low;
          at[r][p].y += weight.at[r] * high;
        }
      }
    }
  }

  __device__ void scale(int r, float factor) {
    for (int p = 0; p < kPairs; ++p) {
      at[r][p].x *= factor;
      at[r][p].y *= factor;
    }
  }

  __device__ void store(int r, float factor, Bf16* head, const Geometry& g) const {
    for (int p = 0; p < kPairs; ++p) {
      const int pair = int(threadIdx.x) % kWarp + p * kWarp;
      if (pair >= g.D / 2) continue;
      const unsigned low = __bfloat16_as_ushort(__float2bfloat16_rn(at[r][p].x * factor));
      const unsigned high = __bfloat16_as_ushort(__float2bfloat16_rn(at[r][p].y * factor));
      reinterpret_cast<unsigned*>(head)[pair] = low | high << 16;
    }
  }
};

// A block's shared memory: two tiles, its own rows of one or two tensors, and for each warp the
// weights of a tile's rows.
template <int kRows, int kOwned>
struct SharedMemory {
  uint4* tiles[2];
  float* owned[kOwned];    // The block's.
  float* of_warp[kOwned];  // The part of this warp.
  PerRow<kRows>* weights;  // Of this warp.

  __device__ explicit SharedMemory(const Geometry& g) {
    const int warp = int(threadIdx.x) / kWarp, warp_size = kRows * g.chunks * kPack;
    tiles[0] = shared_memory<uint4>();
    tiles[1] = tiles[0] + kTile * g.tile_stride;
    auto* next = reinterpret_cast<float*>(tiles[1] + kTile * g.tile_stride);
    for (int i = 0; i < kOwned; ++i, next += kWarps * warp_size) {
      owned[i] = next;
      of_warp[i] = next + warp * warp_size;
    }
    weights = reinterpret_cast<PerRow<kRows>*>(next) + warp * kTile;
  }
  static size_t byte_count(const Geometry& g) {
    return 2 * kTile * size_t(g.tile_stride) * sizeof(uint4) +
           kOwned * kWarps * kRows * size_t(g.chunks) * kPack * sizeof(float) +
           kWarps * kTile * sizeof(PerRow<kRows>);
  }
};

}  // namespace cuda
