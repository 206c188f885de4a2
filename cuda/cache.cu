// Attention of running sequences against the keys and values that are kept of them.
//
// Plain: a block for each row and query head, whose warps share the keys out and are put together
// at the end. A few tokens against long caches are bound by reading those; for prompts it is much
// slower than attention over whole rows.
#include <cmath>

#include "base/math.h"
#include "cuda/access.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/reduce.h"

namespace cuda {

using backend::CacheAppendArgs;
using backend::CacheAttentionArgs;

namespace {

constexpr int kCacheWarps = 4;
constexpr int kCacheThreads = kCacheWarps * kWarp;
constexpr int kCacheHeadMax = 256;
constexpr int kSlicesMax = kCacheHeadMax / kWarp;  // Numbers of a head for each lane.

struct CacheView {
  Bf16 *keys, *values, *qkv;
  const int32_t *sequences, *positions;
  int64_t stride;  // Numbers of a row of qkv.
  int T, D, heads, kv_heads;

  // Of a key/value head's first position.
  __device__ int64_t offset(int sequence, int kv_head) const {
    return (int64_t(sequence) * kv_heads + kv_head) * T * D;
  }
};

template <class Args>
CacheView view_of(const Args& args) {
  const backend::KeyValueCache& cache = args.cache;
  const int64_t N = cache.positions.element_count();
  const int64_t stride = (args.heads + 2 * args.kv_heads) * args.head_size;
  CHECK(cache.keys.shape == cache.values.shape && cache.keys.shape.rank() == 4);
  CHECK(cache.keys.shape[1] == args.kv_heads && cache.keys.shape[3] == args.head_size);
  CHECK(cache.sequences.element_count() == N && args.qkv.element_count() == N * stride);
  CHECK(args.heads % args.kv_heads == 0 && args.head_size % 2 == 0);
  return {.keys = bf16(cache.keys),
          .values = bf16(cache.values),
          .qkv = bf16(args.qkv),
          .sequences = cache.sequences.as<int32_t>(),
          .positions = cache.positions.as<int32_t>(),
          .stride = stride,
          .T = int(cache.keys.shape[2]),
          .D = int(args.head_size),
          .heads = int(args.heads),
          .kv_heads = int(args.kv_heads)};
}

// x[j], x[j + D/2] rotated by the row's position, and what is kept of keys and values. A block for
// each row. Reads and writes 2 bytes for each number of qkv, and writes 2 for each key and value.
__global__ void __launch_bounds__(kCacheThreads) append_kernel(CacheView c, const float* table) {
  const int sequence = c.sequences[blockIdx.x], position = c.positions[blockIdx.x];
  if (sequence < 0) return;
  Bf16* const row = c.qkv + blockIdx.x * c.stride;
  const int half = c.D / 2;
  const float* const angles = table + int64_t(position) * c.D;
  for (int i = int(threadIdx.x); i < (c.heads + c.kv_heads) * half; i += kCacheThreads) {
    const int head = i / half, j = i % half;
    Bf16* const low = row + head * c.D + j;
    const float x = load(low), y = load(low + half);
    const float cosine = angles[j], sine = angles[half + j];
    store(low, x * cosine - y * sine);
    store(low + half, y * cosine + x * sine);
    if (head < c.heads) continue;
    Bf16* const key = c.keys + c.offset(sequence, head - c.heads) + int64_t(position) * c.D + j;
    key[0] = low[0];
    key[half] = low[half];
  }
  const Bf16* const values = row + (c.heads + c.kv_heads) * c.D;
  for (int i = int(threadIdx.x); i < c.kv_heads * c.D; i += kCacheThreads) {
    const int64_t to = c.offset(sequence, i / c.D) + int64_t(position) * c.D + i % c.D;
    c.values[to] = values[i];
  }
}

// What a warp knows of its keys: the largest score, the sum of e^(score - max), and this lane's
// part of the weighted values.
struct WarpPart {
  float max = -INFINITY, total = 0;
  float sums[kSlicesMax] = {};
};

// The score of this lane's key.
template <int kLanes>
__device__ float score_of(const float* query, const Bf16* key, int D) {
  float score = 0;
  for (int d = 0; d < D; d += kLanes) {
    const Lanes<kLanes> k = load_lanes<kLanes>(key + d);
    for (int i = 0; i < kLanes; ++i) score += query[d + i] * k.at[i];
  }
  return score;
}

// Keys [first, first + 32), those below `end`, folded into the warp's part.
template <int kLanes>
__device__ void fold_tile(WarpPart& part, const float* query, const Bf16* keys, const Bf16* values,
                          int first, int end, int D) {
  const int lane = int(threadIdx.x) % kWarp, key = first + lane;
  const float score = key < end ? score_of<kLanes>(query, keys + int64_t(key) * D, D) : -INFINITY;
  const float new_max = fmaxf(part.max, warp_max(score));
  const float shrink = __expf(part.max - new_max);  // 0 before the first tile.
  const float weight = key < end ? __expf(score - new_max) : 0.0f;
  part.total = part.total * shrink + warp_sum(weight);
  part.max = new_max;
  for (float& sum : part.sums) sum *= shrink;
  const int count = min(kWarp, end - first);
  for (int j = 0; j < count; ++j) {
    const float p = __shfl_sync(kAllLanes, weight, j);
    const Bf16* const value = values + int64_t(first + j) * D;
    for (int i = 0; i < kSlicesMax; ++i) {
      const int d = lane + i * kWarp;
      if (d < D) part.sums[i] += p * load(value + d);
    }
  }
}

// out = softmax(q k^T / sqrt(D)) v. A block for each row and query head; warp w takes the tiles of
// 32 keys w, w + 4, ... Reads 4 D bytes per key and query head.
template <int kLanes>
__global__ void __launch_bounds__(kCacheThreads)
    cache_attention_kernel(CacheView c, Bf16* out, float scale) {
  const int row = int(blockIdx.x) / c.heads, head = int(blockIdx.x) % c.heads;
  const int sequence = c.sequences[row];
  if (sequence < 0) return;
  float* const query = shared_memory<float>();  // (D), then a part for each warp: max, total, (D).
  float* const parts = query + c.D;
  const int part_size = 2 + c.D;
  for (int d = int(threadIdx.x); d < c.D; d += kCacheThreads)
    query[d] = scale * load(c.qkv + row * c.stride + head * c.D + d);
  __syncthreads();

  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int64_t offset = c.offset(sequence, head / (c.heads / c.kv_heads));
  const int end = c.positions[row] + 1;
  WarpPart part;
  for (int first = warp * kWarp; first < end; first += kCacheThreads)
    fold_tile<kLanes>(part, query, c.keys + offset, c.values + offset, first, end, c.D);
  float* const mine = parts + warp * part_size;
  if (lane == 0) {
    mine[0] = part.max;
    mine[1] = part.total;
  }
  for (int i = 0; i < kSlicesMax; ++i) {
    if (lane + i * kWarp < c.D) mine[2 + lane + i * kWarp] = part.sums[i];
  }
  __syncthreads();

  float max = parts[0];  // The first warp has a key in any case.
  for (int w = 1; w < kCacheWarps; ++w) max = fmaxf(max, parts[w * part_size]);
  float total = 0;
  for (int w = 0; w < kCacheWarps; ++w)
    total += parts[w * part_size + 1] * __expf(parts[w * part_size] - max);
  for (int d = int(threadIdx.x); d < c.D; d += kCacheThreads) {
    float sum = 0;
    for (int w = 0; w < kCacheWarps; ++w)
      sum += parts[w * part_size + 2 + d] * __expf(parts[w * part_size] - max);
    store(out + (int64_t(row) * c.heads + head) * c.D + d, sum / total);
  }
}

}  // namespace

void CudaOps::cache_append(const CacheAppendArgs& args, backend::Stream& stream) {
  const CacheView view = view_of(args);
  CHECK(args.table.element_count() >= int64_t(view.T) * view.D);
  const int64_t rows = args.cache.positions.element_count();
  if (rows == 0) return;
  launch(append_kernel, {.blocks = unsigned(rows), .threads = kCacheThreads}, handle_of(stream),
         view, fp32(args.table));
}

void CudaOps::cache_attention(const CacheAttentionArgs& args, backend::Stream& stream) {
  const CacheView view = view_of(args);
  const int64_t rows = args.cache.positions.element_count();
  CHECK(args.out.element_count() == rows * view.heads * view.D);
  if (view.D > kCacheHeadMax) {
    throw base::bad_input(fmt::format("heads of {} are too wide to decode on a GPU", view.D),
                          fmt::format("at most {} are served; use --device cpu", kCacheHeadMax));
  }
  if (rows == 0) return;
  const bool fits = fits_packs(view.D, {view.keys});
  const size_t shared = sizeof(float) * size_t(view.D + kCacheWarps * (2 + view.D));
  launch(fits ? cache_attention_kernel<kPack> : cache_attention_kernel<1>,
         {.blocks = unsigned(rows * view.heads), .threads = kCacheThreads, .shared_bytes = shared},
         handle_of(stream), view, bf16(args.out), 1.0f / std::sqrt(float(view.D)));
}

}  // namespace cuda
