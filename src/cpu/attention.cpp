// Causal grouped-query attention inside documents, without ever holding a whole (T, T) matrix of
// scores.
//
// One idea: the query heads that share a key/value head are stacked. A block of P positions with G
// = H/K heads becomes a matrix of G*P query rows against the same keys and values, so every product
// is a large one for OpenBLAS, and the gradients of keys and values come out summed over the group.
// Keys are walked in tiles; the forward rescales what it has when a tile raises the maximum (online
// softmax), the backward makes the probabilities again from the saved log-sum-exp. (Dao,
// "FlashAttention-2", 2023, algorithms 1 and 2, with blocks that fit the second-level cache.)
#include <algorithm>
#include <cmath>

#include "cpu/attention_rows.h"
#include "cpu/cpu_backend.h"

namespace cpu {

using backend::AttentionBackwardArgs;
using backend::AttentionForwardArgs;
using backend::Stream;

namespace {

constexpr int64_t kStackedRows = 128;  // About G*P.

// Where things lie in one row of the batch, seen by one key/value head.
struct Geometry {
  int64_t T, D, group, kv_head, stride;  // `stride`: floats from one position of qkv to the next.
  int64_t positions;                     // Per block.

  template <class Args>
  Geometry(const Args& args, int64_t kv_head_index)
      : T(args.sequence_length),
        D(args.head_size),
        group(args.heads / args.kv_heads),
        kv_head(kv_head_index),
        stride((args.heads + 2 * args.kv_heads) * args.head_size),
        positions(std::max<int64_t>(1, kStackedRows / group)),
        heads_(args.heads),
        kv_heads_(args.kv_heads) {}

  int64_t query_offset() const { return kv_head * group * D; }
  int64_t key_offset() const { return (heads_ + kv_head) * D; }
  int64_t value_offset() const { return (heads_ + kv_heads_ + kv_head) * D; }
  int64_t out_stride() const { return heads_ * D; }
  int64_t stacked_rows() const { return group * positions; }
  int64_t block_count() const { return base::div_ceil(T, positions); }

 private:
  int64_t heads_, kv_heads_;
};

// A block of positions [begin, end) and the keys that any of them may see.
struct Block {
  int64_t begin, end, keys_begin;
  const int32_t* document_start;  // Of the row.

  Block(const Geometry& g, int64_t index, const int32_t* starts)
      : begin(index * g.positions),
        end(std::min(g.T, begin + g.positions)),
        document_start(starts) {
    keys_begin = *std::min_element(starts + begin, starts + end);
    for (int64_t i = begin; i < end; ++i) CHECK(starts[i] >= 0 && starts[i] <= i);
  }
  int64_t positions() const { return end - begin; }
};

// What of a tile's columns position i may see.
Visible visible_in(const Block& block, int64_t i, int64_t tile_begin, int64_t tile_end) {
  return {std::max<int64_t>(block.document_start[i], tile_begin) - tile_begin,
          std::min(i + 1, tile_end) - tile_begin};
}

// Copies the group's heads of a block between an interleaved tensor (position-major) and stacked
// rows (head after head).
void stack(const Geometry& g, const Block& block, const float* heads, int64_t stride,
           float* stacked) {
  for (int64_t head = 0; head < g.group; ++head) {
    for (int64_t i = block.begin; i < block.end; ++i, stacked += g.D) {
      std::copy_n(heads + i * stride + head * g.D, g.D, stacked);
    }
  }
}

void unstack(const Geometry& g, const Block& block, const float* stacked, float* heads,
             int64_t stride) {
  for (int64_t head = 0; head < g.group; ++head) {
    for (int64_t i = block.begin; i < block.end; ++i, stacked += g.D) {
      std::copy_n(stacked, g.D, heads + i * stride + head * g.D);
    }
  }
}

// One block of one (row, key/value head). `qkv` and `out` start at the row; `lse` at the group's
// first head, or null.
void forward_block(const Geometry& g, const Block& block, float* qkv, float* out, float* lse,
                   float* scratch) {
  const int64_t rows = g.group * block.positions();
  const Matrix queries{scratch, g.D}, result{queries.data + rows * g.D, g.D};
  const Matrix scores{result.data + rows * g.D, kTileKeys};
  float* max = scores.data + rows * kTileKeys;
  float* sum = max + rows;
  stack(g, block, qkv + g.query_offset(), g.stride, queries.data);
  std::fill_n(result.data, rows * g.D, 0.0f);
  std::fill_n(max, rows, kMinusInfinity);
  std::fill_n(sum, rows, 0.0f);

  const float scale = 1.0f / std::sqrt(float(g.D));
  for (int64_t tile = block.keys_begin; tile < block.end; tile += kTileKeys) {
    const int64_t tile_end = std::min(block.end, tile + kTileKeys), keys = tile_end - tile;
    const Matrix key{qkv + tile * g.stride + g.key_offset(), g.stride};
    const Matrix value{qkv + tile * g.stride + g.value_offset(), g.stride};
    multiply(CblasNoTrans, CblasTrans, rows, keys, g.D, scale, queries, key, 0, scores);
    for (int64_t row = 0; row < rows; ++row) {
      const Visible visible =
          visible_in(block, block.begin + row % block.positions(), tile, tile_end);
      online_softmax_row(scores.data + row * kTileKeys, visible, keys, max[row], sum[row],
                         result.data + row * g.D, g.D);
    }
    multiply(CblasNoTrans, CblasNoTrans, rows, g.D, keys, 1, scores, value, 1, result);
  }
  for (int64_t row = 0; row < rows; ++row) {
    scale_in_place(result.data + row * g.D, 1.0f / sum[row], g.D);
    const int64_t head = row / block.positions(), i = block.begin + row % block.positions();
    if (lse) lse[head * g.T + i] = max[row] + std::log(sum[row]);
  }
  unstack(g, block, result.data, out + g.query_offset(), g.out_stride());
}

int64_t forward_scratch(const Geometry& g) {
  return g.stacked_rows() * (2 * g.D + kTileKeys + 2);
}

// scores becomes the probabilities P; slopes, which holds dP = dO V^T, becomes the gradient of the
// scores P * (dP - delta) * scale.
void softmax_backward_row(float* scores, float* slopes, Visible visible, int64_t tile_keys,
                          float lse, float delta, float scale) {
  const int64_t first = std::min(visible.first, tile_keys), last = std::max(first, visible.last);
  std::fill(scores, scores + first, 0.0f);
  std::fill(slopes, slopes + first, 0.0f);
#pragma omp simd
  for (int64_t j = first; j < last; ++j) {
    const float p = exp_fast(scores[j] - lse);
    scores[j] = p;
    slopes[j] = p * (slopes[j] - delta) * scale;
  }
  std::fill(scores + last, scores + tile_keys, 0.0f);
  std::fill(slopes + last, slopes + tile_keys, 0.0f);
}

VECTOR_LOOP float dot(const float* a, const float* b, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < count; ++j) sum += a[j] * b[j];
  return sum;
}

// What the backward of one (row, key/value head) reads and writes; all but lse start at the row.
struct BackwardRow {
  float *qkv, *qkv_gradient;
  const float *out, *out_gradient;
  const float* lse;  // At the group's first head.
};

void backward_block(const Geometry& g, const Block& block, const BackwardRow& r, float* scratch) {
  const int64_t rows = g.group * block.positions();
  const Matrix queries{scratch, g.D}, dout{queries.data + rows * g.D, g.D},
      dqueries{dout.data + rows * g.D, g.D};
  const Matrix scores{dqueries.data + rows * g.D, kTileKeys},
      slopes{scores.data + rows * kTileKeys, kTileKeys};
  float* delta = slopes.data + rows * kTileKeys;
  // delta = sum over the head of dO * O: what the softmax's normalisation takes away from every
  // slope.
  stack(g, block, r.out + g.query_offset(), g.out_stride(), queries.data);
  stack(g, block, r.out_gradient + g.query_offset(), g.out_stride(), dout.data);
  for (int64_t row = 0; row < rows; ++row)
    delta[row] = dot(queries.data + row * g.D, dout.data + row * g.D, g.D);
  stack(g, block, r.qkv + g.query_offset(), g.stride, queries.data);

  const float scale = 1.0f / std::sqrt(float(g.D));
  for (int64_t tile = block.keys_begin; tile < block.end; tile += kTileKeys) {
    const int64_t tile_end = std::min(block.end, tile + kTileKeys), keys = tile_end - tile;
    const Matrix key{r.qkv + tile * g.stride + g.key_offset(), g.stride};
    const Matrix value{r.qkv + tile * g.stride + g.value_offset(), g.stride};
    const Matrix dkey{r.qkv_gradient + tile * g.stride + g.key_offset(), g.stride};
    const Matrix dvalue{r.qkv_gradient + tile * g.stride + g.value_offset(), g.stride};
    multiply(CblasNoTrans, CblasTrans, rows, keys, g.D, scale, queries, key, 0, scores);
    multiply(CblasNoTrans, CblasTrans, rows, keys, g.D, 1, dout, value, 0, slopes);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t head = row / block.positions(), i = block.begin + row % block.positions();
      softmax_backward_row(scores.data + row * kTileKeys, slopes.data + row * kTileKeys,
                           visible_in(block, i, tile, tile_end), keys, r.lse[head * g.T + i],
                           delta[row], scale);
    }
    multiply(CblasTrans, CblasNoTrans, keys, g.D, rows, 1, scores, dout, 1, dvalue);
    multiply(CblasTrans, CblasNoTrans, keys, g.D, rows, 1, slopes, queries, 1, dkey);
    multiply(CblasNoTrans, CblasNoTrans, rows, g.D, keys, 1, slopes, key,
             tile == block.keys_begin ? 0 : 1, dqueries);
  }
  unstack(g, block, dqueries.data, r.qkv_gradient + g.query_offset(), g.stride);
}

int64_t backward_scratch(const Geometry& g) {
  return g.stacked_rows() * (3 * g.D + 2 * kTileKeys + 1);
}

// Returns the number of rows of the batch.
template <class Args>
int64_t check_shapes(const Args& args) {
  const Geometry g(args, 0);
  const int64_t rows = args.qkv.element_count() / (g.stride * g.T);
  CHECK(args.kv_heads > 0 && args.heads % args.kv_heads == 0);
  CHECK(args.qkv.element_count() == rows * g.T * g.stride &&
        args.document_start.element_count() == rows * g.T);
  CHECK(args.out.element_count() == rows * g.T * g.out_stride());
  CHECK(!args.lse || args.lse.element_count() == rows * args.heads * g.T);
  return rows;
}

}  // namespace

void CpuOps::attention_forward(const AttentionForwardArgs& args, Stream&) {
  const int64_t rows = check_shapes(args);
  const int64_t blocks = Geometry(args, 0).block_count();
  workers_.for_pieces(rows * args.kv_heads * blocks, 1, [&](int64_t item, int64_t, int worker) {
    // The last blocks of a row see the most keys: they go first.
    const int64_t row = item / blocks / args.kv_heads;
    const Geometry g(args, item / blocks % args.kv_heads);
    const Block block(g, blocks - 1 - item % blocks, args.document_start.as<int32_t>() + row * g.T);
    float* lse =
        args.lse ? args.lse.as<float>() + (row * args.heads + g.kv_head * g.group) * g.T : nullptr;
    forward_block(g, block, args.qkv.as<float>() + row * g.T * g.stride,
                  args.out.as<float>() + row * g.T * g.out_stride(), lse,
                  workers_.scratch(worker, forward_scratch(g)));
  });
}

// One worker makes all of a (row, key/value head), so that the sums in the gradients of keys and
// values have one order.
void CpuOps::attention_backward(const AttentionBackwardArgs& args, Stream&) {
  const int64_t rows = check_shapes(args);
  CHECK(args.qkv_gradient.element_count() == args.qkv.element_count());
  CHECK(args.out_gradient.element_count() == args.out.element_count());
  workers_.for_pieces(rows * args.kv_heads, 1, [&](int64_t item, int64_t, int worker) {
    const int64_t row = item / args.kv_heads;
    const Geometry g(args, item % args.kv_heads);
    const BackwardRow r{
        .qkv = args.qkv.as<float>() + row * g.T * g.stride,
        .qkv_gradient = args.qkv_gradient.as<float>() + row * g.T * g.stride,
        .out = args.out.as<float>() + row * g.T * g.out_stride(),
        .out_gradient = args.out_gradient.as<float>() + row * g.T * g.out_stride(),
        .lse = args.lse.as<float>() + (row * args.heads + g.kv_head * g.group) * g.T};
    for (int64_t i = 0; i < g.T; ++i) {
      std::fill_n(r.qkv_gradient + i * g.stride + g.key_offset(), g.D, 0.0f);
      std::fill_n(r.qkv_gradient + i * g.stride + g.value_offset(), g.D, 0.0f);
    }
    float* scratch = workers_.scratch(worker, backward_scratch(g));
    for (int64_t index = 0; index < g.block_count(); ++index) {
      backward_block(g, Block(g, index, args.document_start.as<int32_t>() + row * g.T), r, scratch);
    }
  });
}

}  // namespace cpu
