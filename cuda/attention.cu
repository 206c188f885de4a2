// Attention on the ordinary cores of a GPU: for head sizes and machines that cuDNN does not serve.
// (Dao, "FlashAttention-2", 2023, algorithms 1 and 2; the gradients of queries and of keys are
// kernels of their own, so that nobody needs atomics.)
//
// The kernels have the form of attention_tiles.h. Queries that share a key/value head are owned
// together: "stacked" row s is position s / G and head s % G of the group's G = H/K. Tiles outside
// the owned rows' documents, or beyond what they may see, are not visited.
#include <cmath>
#include <type_traits>

#include "base/math.h"
#include "cuda/attention.h"
#include "cuda/attention_tiles.h"
#include "cuda/launch.h"

namespace cuda {

using backend::AttentionBackwardArgs;
using backend::AttentionForwardArgs;
using backend::DType;
using backend::Tensor;

namespace {

constexpr int kHeadSizeMax = 256;

// How many rows a warp owns: as many as 48 KiB of shared memory allow for `pairs` per lane.
constexpr int forward_rows(int pairs) {
  return pairs <= 2 ? 4 : 2;
}
constexpr int backward_rows(int pairs) {
  return pairs <= 2 ? 4 : 1;
}

// A stacked row. One that does not exist sees nothing.
struct Query {
  int position = -1, head = 0, document_start = 0;

  __device__ bool exists() const { return position >= 0; }
  __device__ bool sees(int key) const { return document_start <= key && key <= position; }
};

__device__ Query find_query(int stacked_row, const int32_t* document_start, const Geometry& g) {
  const int position = stacked_row / g.group;
  if (position >= g.T) return {};
  return {position, stacked_row % g.group, document_start[position]};
}

// The keys that any of `count` stacked rows sees. Documents follow each other, so the first row's
// begins first.
struct KeyRange {
  int begin, end;
};

__device__ KeyRange find_keys(int first, int count, const int32_t* document_start,
                              const Geometry& g) {
  return {document_start[first / g.group], min(g.T, (first + count - 1) / g.group + 1)};
}

struct ForwardTensors {
  Bf16* out;
  float* lse;  // May be null.
  const Bf16* qkv;
  const int32_t* document_start;
};

// out = softmax(q k^T / sqrt(D)) v and lse, by online softmax: the sums are rescaled when a tile
// raises the maximum. A block owns stacked rows of one head group; those that walk furthest start
// first. 4 D FLOP per query and visible key; a block of 16 rows reads 4 D bytes per key.
template <int kPairs>
__global__ __launch_bounds__(kThreads) void forward_kernel(ForwardTensors t, Geometry g) {
  constexpr int kRows = forward_rows(kPairs);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const HeadGroup heads(int(blockIdx.x) % g.head_groups, g);
  const int first =
      int(gridDim.x / unsigned(g.head_groups) - 1 - blockIdx.x / unsigned(g.head_groups)) * kWarps *
      kRows;
  const int32_t* document_start = t.document_start + int64_t(heads.row) * g.T;
  const SharedMemory<kRows, 1> shared(g);
  copy_owned(shared.owned[0], kWarps * kRows, heads.queries(t.qkv, g), first, g.scale, g);

  Slices<kRows, kPairs> sums;
  Query queries[kRows];
  float max[kRows], total[kRows];  // `total`: over the keys of this lane.
  for (int r = 0; r < kRows; ++r) {
    queries[r] = find_query(first + warp * kRows + r, document_start, g);
    max[r] = -INFINITY;
    total[r] = 0;
  }
  const KeyRange range = find_keys(first, kWarps * kRows, document_start, g);
  for (int tile = range.begin; tile < range.end; tile += kTile) {
    copy_tile(shared.tiles[0], heads.keys(t.qkv, g), tile, g);
    copy_tile(shared.tiles[1], heads.values(t.qkv, g), tile, g);
    __syncthreads();
    PerRow<kRows> weights = products<kRows>(shared.of_warp[0], shared.tiles[0], g);
    for (int r = 0; r < kRows; ++r) {
      const bool sees = queries[r].sees(tile + lane);
      const float new_max = fmaxf(max[r], warp_max(sees ? weights.at[r] : -INFINITY));
      // Before the first visible key both are minus infinity.
      const float shrink = max[r] == new_max ? 1.0f : __expf(max[r] - new_max);
      weights.at[r] = sees ? __expf(weights.at[r] - new_max) : 0.0f;
      total[r] = total[r] * shrink + weights.at[r];
      sums.scale(r, shrink);
      max[r] = new_max;
    }
    shared.weights[lane] = weights;
    __syncwarp();
    sums.add(shared.weights, shared.tiles[1], g);
    __syncthreads();
  }
  for (int r = 0; r < kRows; ++r) {
    const float sum = warp_sum(total[r]);
    const Query& query = queries[r];
    if (!query.exists()) continue;
    Bf16* const out = t.out + heads.out_offset(g) + query.position * g.out_stride;
    sums.store(r, 1.0f / sum, out + query.head * g.D, g);
    if (t.lse && lane == 0)
      t.lse[heads.lse_index(query.head, query.position, g)] = max[r] + logf(sum);
  }
}

struct BackwardTensors {
  Bf16* qkv_gradient;
  float* delta;  // (N, H)
  const Bf16 *out_gradient, *out;
  const float* lse;
  const Bf16* qkv;
  const int32_t* document_start;
};

// delta = sum over the head of dO * O: what the softmax's normalisation takes from every slope.
// 2^row_threads_log2 lanes for each (position, head), in the order of memory. Reads 4 D bytes for
// each, writes 4.
__global__ void delta_kernel(BackwardTensors t, Geometry g, int64_t count) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t index = thread >> g.row_threads_log2;
  const int chunk = int(threadIdx.x) & ((1 << g.row_threads_log2) - 1);
  float sum = 0;
  if (index < count && chunk < g.chunks) {
    const Float8 x = unpack(load_chunk(t.out + index * g.D, chunk, g));
    const Float8 y = unpack(load_chunk(t.out_gradient + index * g.D, chunk, g));
    for (int i = 0; i < kPack; ++i) sum += x.at[i] * y.at[i];
  }
  for (int offset = 1; offset < 1 << g.row_threads_log2; offset *= 2)
    sum += __shfl_xor_sync(kAllLanes, sum, offset);
  if (index < count && chunk == 0) t.delta[index] = sum;
}

// dQ = sum over keys of dS k / sqrt(D),  dS = P * (dO v^T - delta),  P = exp(q k^T / sqrt(D) -
// lse). Owned rows and grid as in the forward. 6 D FLOP per query and visible key; a block reads 4
// D bytes per key.
template <int kPairs>
__global__ __launch_bounds__(kThreads) void query_gradient_kernel(BackwardTensors t, Geometry g) {
  constexpr int kRows = backward_rows(kPairs);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const HeadGroup heads(int(blockIdx.x) % g.head_groups, g);
  const int first =
      int(gridDim.x / unsigned(g.head_groups) - 1 - blockIdx.x / unsigned(g.head_groups)) * kWarps *
      kRows;
  const int32_t* document_start = t.document_start + int64_t(heads.row) * g.T;
  const SharedMemory<kRows, 2> shared(g);
  const Rows out_gradients{t.out_gradient + heads.out_offset(g), g.out_stride, g.group,
                           g.T * g.group};
  copy_owned(shared.owned[0], kWarps * kRows, heads.queries(t.qkv, g), first, g.scale, g);
  copy_owned(shared.owned[1], kWarps * kRows, out_gradients, first, 1.0f, g);

  Slices<kRows, kPairs> sums;
  Query queries[kRows];
  float lse[kRows] = {}, delta[kRows] = {};
  for (int r = 0; r < kRows; ++r) {
    queries[r] = find_query(first + warp * kRows + r, document_start, g);
    if (!queries[r].exists()) continue;
    lse[r] = t.lse[heads.lse_index(queries[r].head, queries[r].position, g)];
    delta[r] = t.delta[heads.delta_index(queries[r].head, queries[r].position, g)];
  }
  const KeyRange range = find_keys(first, kWarps * kRows, document_start, g);
  for (int tile = range.begin; tile < range.end; tile += kTile) {
    copy_tile(shared.tiles[0], heads.keys(t.qkv, g), tile, g);
    copy_tile(shared.tiles[1], heads.values(t.qkv, g), tile, g);
    __syncthreads();
    PerRow<kRows> weights = products<kRows>(shared.of_warp[0], shared.tiles[0], g);
    const PerRow<kRows> slopes = products<kRows>(shared.of_warp[1], shared.tiles[1], g);
    for (int r = 0; r < kRows; ++r) {
      const float p = queries[r].sees(tile + lane) ? __expf(weights.at[r] - lse[r]) : 0.0f;
      weights.at[r] = p * (slopes.at[r] - delta[r]);
    }
    shared.weights[lane] = weights;
    __syncwarp();
    sums.add(shared.weights, shared.tiles[0], g);
    __syncthreads();
  }
  for (int r = 0; r < kRows; ++r) {
    const Query& query = queries[r];
    if (!query.exists()) continue;
    Bf16* const row = t.qkv_gradient + heads.query_offset(g) + query.position * g.qkv_stride;
    sums.store(r, g.scale, row + query.head * g.D, g);
  }
}

// The first position behind the document of `key`: a binary search, as starts do not decrease.
__device__ int document_end(int key, const int32_t* document_start, const Geometry& g) {
  int low = key + 1, high = g.T;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (document_start[middle] > key) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// dV = sum over queries of P dO,  dK = sum over queries of dS q / sqrt(D).
// A block owns kWarps * kRows keys of one head group, and walks over the queries behind them, of
// each head of the group in turn. 8 D FLOP per query and visible key; a block reads 4 D bytes per
// query.
template <int kPairs>
__global__ __launch_bounds__(kThreads) void key_gradient_kernel(BackwardTensors t, Geometry g) {
  constexpr int kRows = backward_rows(kPairs);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const HeadGroup heads(int(blockIdx.x) % g.head_groups, g);
  const int first = int(blockIdx.x) / g.head_groups * kWarps * kRows;
  const int32_t* document_start = t.document_start + int64_t(heads.row) * g.T;
  const SharedMemory<kRows, 2> shared(g);
  copy_owned(shared.owned[0], kWarps * kRows, heads.keys(t.qkv, g), first, g.scale, g);
  copy_owned(shared.owned[1], kWarps * kRows, heads.values(t.qkv, g), first, 1.0f, g);

  Slices<kRows, kPairs> key_sums, value_sums;
  const int end = document_end(min(first + kWarps * kRows, g.T) - 1, document_start, g);
  for (int head = 0; head < g.group; ++head) {
    const Rows queries{t.qkv + heads.query_offset(g) + head * g.D, g.qkv_stride, 1, end};
    const Rows out_gradients{t.out_gradient + heads.out_offset(g) + head * g.D, g.out_stride, 1,
                             end};
    for (int tile = first; tile < end; tile += kTile) {
      copy_tile(shared.tiles[0], queries, tile, g);
      copy_tile(shared.tiles[1], out_gradients, tile, g);
      __syncthreads();
      const int position = tile + lane;
      Query query;
      float lse = 0, delta = 0;
      if (position < end) {
        query = {position, head, document_start[position]};
        lse = t.lse[heads.lse_index(head, position, g)];
        delta = t.delta[heads.delta_index(head, position, g)];
      }
      PerRow<kRows> weights = products<kRows>(shared.of_warp[0], shared.tiles[0], g);
      for (int r = 0; r < kRows; ++r) {
        const bool sees = query.sees(first + warp * kRows + r);
        weights.at[r] = sees ? __expf(weights.at[r] - lse) : 0.0f;
      }
      shared.weights[lane] = weights;
      __syncwarp();
      value_sums.add(shared.weights, shared.tiles[1], g);
      const PerRow<kRows> slopes = products<kRows>(shared.of_warp[1], shared.tiles[1], g);
      for (int r = 0; r < kRows; ++r) weights.at[r] *= slopes.at[r] - delta;
      __syncwarp();
      shared.weights[lane] = weights;
      __syncwarp();
      key_sums.add(shared.weights, shared.tiles[0], g);
      __syncthreads();
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int key = first + warp * kRows + r;
    if (key >= g.T) break;
    key_sums.store(r, g.scale, t.qkv_gradient + heads.key_offset(g) + key * g.qkv_stride, g);
    value_sums.store(r, 1.0f, t.qkv_gradient + heads.value_offset(g) + key * g.qkv_stride, g);
  }
}

const Bf16* bf16(const Tensor& tensor) {
  CHECK(tensor.dtype == DType::kBfloat16);
  CHECK(reinterpret_cast<uintptr_t>(tensor.data) % 4 == 0);
  return static_cast<const Bf16*>(tensor.data);
}
Bf16* mutable_bf16(const Tensor& tensor) {
  return const_cast<Bf16*>(bf16(tensor));
}

template <class Args>
Geometry check_shapes(const Args& args) {
  const int64_t T = args.sequence_length, D = args.head_size;
  const int64_t H = args.heads, K = args.kv_heads, N = args.document_start.element_count();
  CHECK(K > 0 && H % K == 0 && T > 0 && N % T == 0);
  CHECK(D > 0 && D % 2 == 0 && D <= kHeadSizeMax, "head size {}", D);
  CHECK(T * (H / K) < (int64_t{1} << 30) && args.document_start.dtype == DType::kInt32);
  CHECK(args.qkv.element_count() == N * (H + 2 * K) * D && args.out.element_count() == N * H * D);
  CHECK(!args.lse || args.lse.element_count() == N * H);
  const int chunks = int(base::div_ceil(D, kPack));
  int row_threads_log2 = 0;
  while (1 << row_threads_log2 < chunks) ++row_threads_log2;
  return {
      .T = int(T),
      .D = int(D),
      .heads = int(H),
      .kv_heads = int(K),
      .group = int(H / K),
      .head_groups = int(N / T * K),
      .qkv_stride = (H + 2 * K) * D,
      .out_stride = H * D,
      .chunks = chunks,
      .row_threads_log2 = row_threads_log2,
      .tile_stride = chunks | 1,
      .scale = 1.0f / std::sqrt(float(D)),
      .is_aligned = D % kPack == 0 && is_aligned16(args.qkv.data) && is_aligned16(args.out.data)};
}

// Calls body with the pairs of numbers of a head that a lane has: 1, 2 or 4, as a constant.
template <class Body>
void with_pairs(const Geometry& g, const Body& body) {
  if (g.D <= 2 * kWarp) {
    body(std::integral_constant<int, 1>());
  } else if (g.D <= 4 * kWarp) {
    body(std::integral_constant<int, 2>());
  } else {
    body(std::integral_constant<int, 4>());
  }
}

unsigned block_count(int64_t rows, int rows_per_warp, const Geometry& g) {
  return unsigned(base::div_ceil(rows, kWarps * rows_per_warp) * g.head_groups);
}

class PlainAttention final : public Attention {
 public:
  explicit PlainAttention(Scratch& scratch) : scratch_(scratch) {}

  void forward(const AttentionForwardArgs& args, cudaStream_t stream) override {
    const Geometry g = check_shapes(args);
    const ForwardTensors t{.out = mutable_bf16(args.out),
                           .lse = args.lse ? args.lse.as<float>() : nullptr,
                           .qkv = bf16(args.qkv),
                           .document_start = args.document_start.as<int32_t>()};
    with_pairs(g, [&](auto pairs) {
      constexpr int kRows = forward_rows(pairs);
      launch(forward_kernel<pairs>,
             {.blocks = block_count(int64_t(g.T) * g.group, kRows, g),
              .threads = kThreads,
              .shared_bytes = SharedMemory<kRows, 1>::byte_count(g)},
             stream, t, g);
    });
  }

  void backward(const AttentionBackwardArgs& args, cudaStream_t stream) override {
    Geometry g = check_shapes(args);
    CHECK(args.qkv_gradient.element_count() == args.qkv.element_count());
    CHECK(args.lse && args.out_gradient.element_count() == args.out.element_count());
    g.is_aligned = g.is_aligned && is_aligned16(args.out_gradient.data);
    const int64_t count = args.lse.element_count();
    const BackwardTensors t{.qkv_gradient = mutable_bf16(args.qkv_gradient),
                            .delta = scratch_.array<float>(count),
                            .out_gradient = bf16(args.out_gradient),
                            .out = bf16(args.out),
                            .lse = args.lse.as<float>(),
                            .qkv = bf16(args.qkv),
                            .document_start = args.document_start.as<int32_t>()};
    launch(delta_kernel,
           {.blocks = unsigned(base::div_ceil(count << g.row_threads_log2, kThreads)),
            .threads = kThreads},
           stream, t, g, count);
    with_pairs(g, [&](auto pairs) {
      constexpr int kRows = backward_rows(pairs);
      const size_t shared_bytes = SharedMemory<kRows, 2>::byte_count(g);
      launch(query_gradient_kernel<pairs>,
             {.blocks = block_count(int64_t(g.T) * g.group, kRows, g),
              .threads = kThreads,
              .shared_bytes = shared_bytes},
             stream, t, g);
      launch(
          key_gradient_kernel<pairs>,
          {.blocks = block_count(g.T, kRows, g), .threads = kThreads, .shared_bytes = shared_bytes},
          stream, t, g);
    });
  }

 private:
  Scratch& scratch_;
};

}  // namespace

std::unique_ptr<Attention> make_plain_attention(Scratch& scratch) {
  return std::make_unique<PlainAttention>(scratch);
}

}  // namespace cuda
