// The two ends of the model, which know the vocabulary: embedding and cross-entropy.
#include <algorithm>
#include <cmath>

#include "base/math.h"
#include "cuda/access.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/reduce.h"

namespace cuda {
namespace {

constexpr int kEmbeddingThreads = 256;

// out[i] = weight[tokens[i]].  A block has a position. Chunk is what is copied at once: 16 bytes,
// or one number where rows are not aligned; `width` counts chunks. Per element 2 bytes are read and
// 2 written.
template <class Chunk>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_forward_kernel(Chunk* out, const Chunk* weight, const int32_t* tokens, int width) {
  const Chunk* const from = weight + int64_t(tokens[blockIdx.x]) * width;
  Chunk* const to = out + int64_t(blockIdx.x) * width;
  for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) to[i] = from[i];
}

// --- Embedding backward. Positions with equal tokens are found by comparing: all positions for
// every distinct token and slice of columns, and for the others up to the first equal one. 8192
// positions with 4096 distinct tokens in two slices are 270 MB from the second-level cache.

constexpr int kTokensPerThread = 4;
constexpr int kTile = kEmbeddingThreads * kTokensPerThread;  // Positions compared at once.
constexpr int kRowsAtOnce = 4;                               // Loads under way together.

// Whether the token of this position stands at an earlier one. For the whole block.
__device__ bool stands_earlier(const int32_t* tokens, int position, int32_t token) {
  for (int tile = 0; tile < position; tile += kTile) {
    bool is_found = false;
#pragma unroll
    for (int k = 0; k < kTokensPerThread; ++k) {
      const int at = tile + k * kEmbeddingThreads + int(threadIdx.x);
      is_found |= at < position && tokens[at] == token;
    }
    if (__syncthreads_or(is_found)) return true;
  }
  return false;
}

// Shared memory of a block: which positions of a tile have the token, as bits and as a list.
struct Matches {
  unsigned bits[kWarp];
  int positions[kTile];
};
static_assert(kTile == kWarp * kWarp);  // A word of bits for every lane.

// Lists the positions of the tile from `tile` on that have the token, in rising order; returns how
// many there are. For the whole block. The list may be read until the next call.
__device__ int list_matches(const int32_t* tokens, int count, int tile, int32_t token,
                            Matches& matches) {
  const int lane = int(threadIdx.x) % kWarp;
  unsigned any = 0;
#pragma unroll
  for (int k = 0; k < kTokensPerThread; ++k) {
    const int in_tile = k * kEmbeddingThreads + int(threadIdx.x), at = tile + in_tile;
    const unsigned bits = __ballot_sync(kAllLanes, at < count && tokens[at] == token);
    any |= bits;
    if (lane == 0) matches.bits[in_tile / kWarp] = bits;
  }
  // Behind this barrier nobody reads the list of the last call any more.
  if (!__syncthreads_or(any != 0)) return 0;
  // Every warp sums up the words: lane l gets the matches up to and with word l.
  const int own = __popc(matches.bits[lane]);
  int up_to = own;
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int before = __shfl_up_sync(kAllLanes, up_to, unsigned(offset));
    if (lane >= offset) up_to += before;
  }
#pragma unroll
  for (int k = 0; k < kTokensPerThread; ++k) {
    const int in_tile = k * kEmbeddingThreads + int(threadIdx.x);
    const int before = __shfl_sync(kAllLanes, up_to - own, in_tile / kWarp);
    const unsigned bits = matches.bits[in_tile / kWarp], lower_lanes = (1u << lane) - 1;
    if (bits >> lane & 1) matches.positions[before + __popc(bits & lower_lanes)] = tile + in_tile;
  }
  __syncthreads();
  return __shfl_sync(kAllLanes, up_to, kWarp - 1);
}

struct EmbeddingBackward {
  float* weight_gradient;    // (V, width)
  const Bf16* out_gradient;  // (count, width)
  const int32_t* tokens;     // (count)
  int count, width;
};

// weight_gradient[token] += out_gradient[i] for all i with this token, one after the other.
// Block (x, y) is for position x and the y-th slice of columns. It ends if the token stands at an
// earlier position, else it adds up the rows of all positions with the token. So every row of the
// gradient has one writer, and its sum the order of the positions. Per element of out_gradient 2
// bytes are read, and 8 read and written per element of a row that occurs.
template <int kLanes>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_backward_kernel(const EmbeddingBackward p) {
  const int position = int(blockIdx.x);
  const int32_t token = p.tokens[position];
  if (stands_earlier(p.tokens, position, token)) return;
  Matches& matches = *shared_memory<Matches>();
  const int column = int(blockIdx.y * kEmbeddingThreads + threadIdx.x) * kLanes;
  const bool is_inside = column < p.width;
  float* const target = p.weight_gradient + int64_t(token) * p.width + column;
  Lanes<kLanes> sum = {};
  if (is_inside) sum = load_lanes<kLanes>(target);
  for (int tile = position; tile < p.count; tile += kTile) {
    const int match_count = list_matches(p.tokens, p.count, tile, token, matches);
    for (int m = 0; is_inside && m < match_count; m += kRowsAtOnce) {
      Lanes<kLanes> rows[kRowsAtOnce];
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        if (m + k >= match_count) continue;
        const int64_t row = matches.positions[m + k];
        rows[k] = load_lanes_once<kLanes>(p.out_gradient + row * p.width + column);
      }
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        if (m + k >= match_count) continue;
        for (int i = 0; i < kLanes; ++i) sum.at[i] += rows[k].at[i];
      }
    }
  }
  if (is_inside) store_lanes(target, sum);
}

// --- Cross-entropy.

constexpr int kRowThreadsMax = 1024;
constexpr int kPacksAtOnce = 4;
constexpr float kLowest = -3.402823466e38f;
constexpr int kNowhere = 0x7fffffff;

// Calls visit(values, first column) for all of a row of `count` numbers, spread over the block; for
// a thread the columns rise. Rows of odd length begin anywhere: the numbers before the first and
// behind the last 16-byte boundary come one at a time.
template <class Visit>
__device__ void visit_row(Bf16* row, int count, const Visit& visit) {
  const int thread = int(threadIdx.x), threads = int(blockDim.x);
  const int misaligned = int(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(Bf16));
  const int head = min(count, (kPack - misaligned) % kPack);
  const int pack_count = (count - head) / kPack;
  const int tail = head + pack_count * kPack;
  if (thread < head) visit(Float1{{load(row + thread)}}, thread);
  const uint4* const packs = reinterpret_cast<const uint4*>(row + head);
  for (int first = thread; first < pack_count; first += kPacksAtOnce * threads) {
    uint4 bits[kPacksAtOnce];
#pragma unroll
    for (int k = 0; k < kPacksAtOnce; ++k) {
      if (first + k * threads < pack_count) bits[k] = packs[first + k * threads];
    }
#pragma unroll
    for (int k = 0; k < kPacksAtOnce; ++k) {
      const int pack = first + k * threads;
      if (pack < pack_count) visit(unpack(bits[k]), head + pack * kPack);
    }
  }
  if (thread < count - tail) visit(Float1{{load(row + tail + thread)}}, tail + thread);
}

// Of the numbers that a thread has seen: the largest, where it stood first, and the sum of
// e^(x - max). Begins with a number below all, not with -infinity, whose difference from itself is
// NaN.
struct OnlineSoftmax {
  float max = kLowest;
  float sum = 0;
  int first = kNowhere;

  template <class Values>
  __device__ void include(const Values& x, int column) {
    constexpr int kCount = sizeof(x.at) / sizeof(float);
    float largest = x.at[0];
    for (int i = 1; i < kCount; ++i) largest = fmaxf(largest, x.at[i]);
    if (largest > max) {  // Seldom after the first few.
      sum *= __expf(max - largest);
      max = largest;
      for (int i = kCount - 1; i >= 0; --i) first = x.at[i] == largest ? column + i : first;
    }
    for (int i = 0; i < kCount; ++i) sum += __expf(x.at[i] - max);
  }
};

struct CrossEntropy {
  float *loss, *z_loss;
  Bf16* logits;
  const int32_t* targets;
  int vocabulary;
  float z_weight, gradient_scale;
  bool compute_gradient;
};

// Of a row's logits x, with `first` where the maximum stands first:
//   loss = log(sum of e^(x - max)) + max - x[target],  z_loss = z_weight * max^2,
//   x[v] = scale * (e^(x[v] - max) / sum - (v == target) + (v == first) * 2 * z_weight * max).
// A target of -1: all 0.
//
// A block has a row and goes over it twice. Per logit 2 bytes are read from memory, 2 from the
// second-level cache, and 2 written. For that the rows under way must fit into the cache: with 1024
// threads of more than 32 registers a multiprocessor has one row, so that 132 rows of 128256 logits
// are 34 of its 50 MB. Rows are taken from the last to the first: the last are still in the cache
// from the product that made them.
__global__ void __launch_bounds__(kRowThreadsMax, 1) cross_entropy_kernel(const CrossEntropy p) {
  float* const slots = shared_memory<float>();
  const int n = int(gridDim.x - 1 - blockIdx.x);
  Bf16* const row = p.logits + int64_t(n) * p.vocabulary;
  const int target = p.targets[n];
  if (target < 0) {
    if (threadIdx.x == 0) p.loss[n] = p.z_loss[n] = 0;
    if (!p.compute_gradient) return;
    visit_row(row, p.vocabulary, [&](auto x, int column) {
      x = {};
      store_lanes(row + column, x);
    });
    return;
  }
  const float target_logit = load(row + target);
  OnlineSoftmax seen;
  visit_row(row, p.vocabulary, [&](const auto& x, int column) { seen.include(x, column); });
  const float max =
      block_combine(seen.max, kLowest, slots, [](float a, float b) { return fmaxf(a, b); });
  const float sum = block_sum(seen.sum * __expf(seen.max - max), slots + kWarp);
  const float loss = logf(sum) + (max - target_logit);
  if (threadIdx.x == 0) {
    p.loss[n] = loss;
    p.z_loss[n] = p.z_weight * max * max;
  }
  if (!p.compute_gradient) return;

  const int first = block_combine(seen.max == max ? seen.first : kNowhere, kNowhere,
                                  reinterpret_cast<int*>(slots + 2 * kWarp),
                                  [](int a, int b) { return min(a, b); });
  // A loss that is not finite has no gradient: with a NaN here the step is skipped.
  const float factor =
      std::isfinite(loss) ? p.gradient_scale / sum : __int_as_float(0x7fc00000);  // NaN.
  visit_row(row, p.vocabulary, [&](auto x, int column) {
    for (float& value : x.at) value = __expf(value - max) * factor;
    store_lanes(row + column, x);
  });
  // The two that differ are written again. Their sums must not be made of what is rounded already.
  __syncthreads();
  if (threadIdx.x != 0) return;
  const float of_max = p.gradient_scale * 2.0f * p.z_weight * max;
  const float of_target = __expf(target_logit - max) * factor - p.gradient_scale;
  store(row + target, target == first ? of_target + of_max : of_target);
  if (first != target && first != kNowhere) store(row + first, factor + of_max);
}

}  // namespace

void CudaOps::embedding_forward(const backend::EmbeddingForwardArgs& args,
                                backend::Stream& stream) {
  const int64_t width = args.weight.shape[1], rows = args.tokens.element_count();
  CHECK(args.out.element_count() == rows * width);
  Bf16* const out = bf16(args.out);
  const Bf16* const weight = bf16(args.weight);
  const int32_t* const tokens = args.tokens.as<int32_t>();
  const bool fits = fits_packs(width, {out, weight});
  const int64_t chunks = fits ? width / kPack : width;
  const int64_t threads = std::min<int64_t>(base::round_up(chunks, kWarp), kEmbeddingThreads);
  const Grid grid{.blocks = unsigned(rows), .threads = unsigned(threads)};
  if (fits) {
    launch(embedding_forward_kernel<uint4>, grid, handle_of(stream), reinterpret_cast<uint4*>(out),
           reinterpret_cast<const uint4*>(weight), tokens, int(chunks));
  } else {
    launch(embedding_forward_kernel<Bf16>, grid, handle_of(stream), out, weight, tokens,
           int(chunks));
  }
}

void CudaOps::embedding_backward(const backend::EmbeddingBackwardArgs& args,
                                 backend::Stream& stream) {
  const int64_t width = args.weight_gradient.shape[1], rows = args.tokens.element_count();
  CHECK(args.out_gradient.element_count() == rows * width);
  const EmbeddingBackward p{.weight_gradient = fp32(args.weight_gradient),
                            .out_gradient = bf16(args.out_gradient),
                            .tokens = args.tokens.as<int32_t>(),
                            .count = int(rows),
                            .width = int(width)};
  const bool fits = fits_packs(width, {p.weight_gradient, p.out_gradient});
  const int64_t slice = kEmbeddingThreads * (fits ? kPack : 1);
  launch(fits ? embedding_backward_kernel<kPack> : embedding_backward_kernel<1>,
         {.blocks = {unsigned(rows), unsigned(base::div_ceil(width, slice))},
          .threads = kEmbeddingThreads,
          .shared_bytes = sizeof(Matches)},
         handle_of(stream), p);
}

void CudaOps::cross_entropy(const backend::CrossEntropyArgs& args, backend::Stream& stream) {
  const int64_t rows = args.logits.shape[0], vocabulary = args.logits.shape[1];
  CHECK(args.targets.element_count() == rows && args.loss.element_count() == rows);
  CHECK(args.z_loss.element_count() == rows);
  const CrossEntropy p{.loss = fp32(args.loss),
                       .z_loss = fp32(args.z_loss),
                       .logits = bf16(args.logits),
                       .targets = args.targets.as<int32_t>(),
                       .vocabulary = int(vocabulary),
                       .z_weight = args.z_weight,
                       .gradient_scale = args.gradient_scale,
                       .compute_gradient = args.compute_gradient};
  const int64_t threads = base::round_up(base::div_ceil(vocabulary, kPack), kWarp);
  launch(cross_entropy_kernel,
         {.blocks = unsigned(rows),
          .threads = unsigned(std::min<int64_t>(threads, kRowThreadsMax)),
          .shared_bytes = 3 * kWarp * sizeof(float)},
         handle_of(stream), p);
}

}  // namespace cuda
