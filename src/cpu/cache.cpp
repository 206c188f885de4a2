// Attention of running sequences against the keys and values that are kept of them.
//
// Rows of a batch that are neighbours in one sequence are taken together, as a block of
// attention.cpp is: the G heads of P positions are G*P stacked rows against the same keys. A prompt
// then makes large products, and a single new token the few rows that few_rows.h is for.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/attention_rows.h"
#include "cpu/cpu_backend.h"
#include "cpu/few_rows.h"
#include "cpu/pointwise_rows.h"

namespace cpu {

using backend::CacheAppendArgs;
using backend::CacheAttentionArgs;
using backend::KeyValueCache;
using backend::Stream;

namespace {

constexpr int64_t kCacheStackedRows = 128;  // About G*P.

// What the shapes say, checked.
struct CacheShape {
  int64_t N, S, K, T, D, G, H, qkv_stride;

  template <class Args>
  explicit CacheShape(const Args& args)
      : N(args.cache.positions.element_count()),
        S(args.cache.keys.shape[0]),
        K(args.kv_heads),
        T(args.cache.keys.shape[2]),
        D(args.head_size),
        G(args.heads / args.kv_heads),
        H(args.heads),
        qkv_stride((args.heads + 2 * args.kv_heads) * args.head_size) {
    CHECK(args.cache.keys.shape == backend::Shape({S, K, T, D}));
    CHECK(args.cache.values.shape == args.cache.keys.shape);
    CHECK(args.cache.sequences.element_count() == N && H == G * K);
    CHECK(args.qkv.element_count() == N * qkv_stride);
  }
  // Of a key/value head's first position.
  int64_t offset(int64_t sequence, int64_t kv_head) const {
    return (sequence * K + kv_head) * T * D;
  }
};

// Where a row of the batch stands.
struct Place {
  int32_t sequence, position;

  Place(const KeyValueCache& cache, const CacheShape& s, int64_t row)
      : sequence(cache.sequences.as<int32_t>()[row]), position(cache.positions.as<int32_t>()[row]) {
    CHECK(sequence >= -1 && sequence < s.S && position >= 0 && position < s.T);
  }
  bool counts() const { return sequence >= 0; }
  bool is_followed_by(const Place& next, int64_t distance) const {
    return next.sequence == sequence && next.position == position + distance;
  }
};

// Rows [row, row + count) of the batch: neighbours in one sequence, the first at `place`.
struct Run {
  Place place;
  int64_t row, count;
};

std::vector<Run> find_runs(const KeyValueCache& cache, const CacheShape& s) {
  const int64_t longest = std::max<int64_t>(1, kCacheStackedRows / s.G);
  std::vector<Run> runs;
  for (int64_t row = 0; row < s.N; ++row) {
    const Place place(cache, s, row);
    if (!place.counts()) continue;
    if (!runs.empty()) {
      Run& last = runs.back();
      const bool is_next = last.row + last.count == row && last.count < longest;
      if (is_next && last.place.is_followed_by(place, last.count)) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({place, row, 1});
  }
  return runs;
}

// scores = queries keys', and result += scores values, of `rows` stacked rows and `keys` positions.
void multiply_keys(int64_t rows, int64_t keys, int64_t D, Matrix queries, Matrix key,
                   Matrix scores) {
  if (rows > kFewRows)
    return multiply(CblasNoTrans, CblasTrans, rows, keys, D, 1, queries, key, 0, scores);
  multiply_few_rows({.a = queries.data,
                     .a_stride = queries.stride,
                     .m = rows,
                     .b = key.data,
                     .b_stride = key.stride,
                     .n = keys,
                     .k = D,
                     .out = scores.data,
                     .out_stride = scores.stride});
}
void add_values(int64_t rows, int64_t keys, int64_t D, Matrix scores, Matrix value, Matrix result) {
  if (rows > kFewRows)
    return multiply(CblasNoTrans, CblasNoTrans, rows, D, keys, 1, scores, value, 1, result);
  add_few_rows({.a = scores.data,
                .a_stride = scores.stride,
                .m = rows,
                .b = value.data,
                .b_stride = value.stride,
                .n = D,
                .k = keys,
                .out = result.data,
                .out_stride = result.stride});
}

// One run and key/value head. Stacked row r is head r / count of the group at row r % count.
void attend(const CacheAttentionArgs& args, const CacheShape& s, const Run& run, int64_t kv_head,
            float* scratch) {
  const int64_t rows = s.G * run.count;
  const Matrix queries{scratch, s.D}, result{queries.data + rows * s.D, s.D};
  const Matrix scores{result.data + rows * s.D, kTileKeys};
  float* const max = scores.data + rows * kTileKeys;
  float* const sum = max + rows;
  const float scale = 1.0f / std::sqrt(float(s.D));
  const auto head_offset = [&](int64_t row) { return (kv_head * s.G + row / run.count) * s.D; };
  const auto batch_row = [&](int64_t row) { return run.row + row % run.count; };

  for (int64_t row = 0; row < rows; ++row) {
    float* const query = queries.data + row * s.D;
    std::copy_n(args.qkv.as<float>() + batch_row(row) * s.qkv_stride + head_offset(row), s.D,
                query);
    scale_in_place(query, scale, s.D);
  }
  std::fill_n(result.data, rows * s.D, 0.0f);
  std::fill_n(max, rows, kMinusInfinity);
  std::fill_n(sum, rows, 0.0f);

  const int64_t offset = s.offset(run.place.sequence, kv_head);
  const int64_t end = run.place.position + run.count;
  for (int64_t tile = 0; tile < end; tile += kTileKeys) {
    const int64_t keys = std::min(kTileKeys, end - tile);
    const Matrix key{args.cache.keys.as<float>() + offset + tile * s.D, s.D};
    const Matrix value{args.cache.values.as<float>() + offset + tile * s.D, s.D};
    multiply_keys(rows, keys, s.D, queries, key, scores);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t position = run.place.position + row % run.count;
      online_softmax_row(scores.data + row * kTileKeys, {0, std::min(position + 1 - tile, keys)},
                         keys, max[row], sum[row], result.data + row * s.D, s.D);
    }
    add_values(rows, keys, s.D, scores, value, result);
  }
  for (int64_t row = 0; row < rows; ++row) {
    scale_in_place(result.data + row * s.D, 1.0f / sum[row], s.D);
    std::copy_n(result.data + row * s.D, s.D,
                args.out.as<float>() + batch_row(row) * s.H * s.D + head_offset(row));
  }
}

int64_t attend_scratch(const CacheShape& s, const Run& run) {
  return s.G * run.count * (2 * s.D + kTileKeys + 2);
}

}  // namespace

void CpuOps::cache_append(const CacheAppendArgs& args, Stream&) {
  const CacheShape s(args);
  CHECK(args.table.element_count() >= s.T * s.D && s.D % 2 == 0);
  workers_.for_pieces(s.N, rows_per_piece(s.qkv_stride), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Place place(args.cache, s, row);
      if (!place.counts()) continue;
      float* const qkv = args.qkv.as<float>() + row * s.qkv_stride;
      rotate_heads(qkv, s.H + s.K, s.D / 2, args.table.as<float>() + place.position * s.D, 1.0f);
      for (int64_t kv_head = 0; kv_head < s.K; ++kv_head) {
        const int64_t to = s.offset(place.sequence, kv_head) + place.position * s.D;
        std::copy_n(qkv + (s.H + kv_head) * s.D, s.D, args.cache.keys.as<float>() + to);
        std::copy_n(qkv + (s.H + s.K + kv_head) * s.D, s.D, args.cache.values.as<float>() + to);
      }
    }
  });
}

void CpuOps::cache_attention(const CacheAttentionArgs& args, Stream&) {
  const CacheShape s(args);
  CHECK(args.out.element_count() == s.N * s.H * s.D);
  const std::vector<Run> runs = find_runs(args.cache, s);
  if (runs.empty()) return;
  workers_.for_pieces(int64_t(runs.size()) * s.K, 1, [&](int64_t item, int64_t, int worker) {
    // The last runs of a prompt see the most keys: they go first.
    const Run& run = runs[runs.size() - 1 - size_t(item / s.K)];
    attend(args, s, run, item % s.K, workers_.scratch(worker, attend_scratch(s, run)));
  });
}

}  // namespace cpu
