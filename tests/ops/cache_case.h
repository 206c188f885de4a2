// Running sequences for the tests of attention against a cache: which rows come, and where they
// stand.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "ops/rig.h"

namespace ops_test {

struct CacheCase {
  int64_t S = 1, T = 1, H = 1, K = 1, D = 2;
  std::vector<int32_t> sequences, positions;  // Of the rows; -1: one that fills up.

  int64_t N() const { return int64_t(sequences.size()); }
  int64_t qkv_stride() const { return (H + 2 * K) * D; }
  int64_t cache_count() const { return S * K * T * D; }
  int64_t key(int64_t sequence, int64_t kv_head, int64_t position) const {
    return ((sequence * K + kv_head) * T + position) * D;
  }
  // Row after row: `count` tokens that continue a sequence at `position`.
  void add(int32_t sequence, int32_t position, int32_t count = 1) {
    for (int32_t i = 0; i < count; ++i) {
      sequences.push_back(sequence);
      positions.push_back(position + i);
    }
  }
  void fill_up() { add(-1, 0); }
  // Per position D/2 cosines, then D/2 sines, of arbitrary angles.
  Values table() const {
    Values table(size_t(T * D));
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t j = 0; j < D / 2; ++j) {
        const double angle = double(t) / double(1 + j);
        table[size_t(t * D + j)] = float(std::cos(angle));
        table[size_t(t * D + D / 2 + j)] = float(std::sin(angle));
      }
    }
    return table;
  }
};

inline CacheCase make_cache_case(int64_t S, int64_t T, int64_t H, int64_t K, int64_t D) {
  return {.S = S, .T = T, .H = H, .K = K, .D = D, .sequences = {}, .positions = {}};
}

}  // namespace ops_test
