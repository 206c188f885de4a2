// Attention against a cache, by the textbook in double: each row rotated by its own position, kept,
// and compared with everything before it in its sequence.
#include <algorithm>

#include "ops/cache_case.h"

using namespace ops_test;

namespace {

struct CacheOutcome {
  Values qkv, keys, values, out;
};

void rotate_by_hand(Values& qkv, int64_t at, const CacheCase& c, const Values& table,
                    int64_t position) {
  const int64_t half = c.D / 2;
  for (int64_t j = 0; j < half; ++j) {
    const double cosine = table[size_t(position * c.D + j)];
    const double sine = table[size_t(position * c.D + half + j)];
    double &low = qkv[size_t(at + j)], &high = qkv[size_t(at + half + j)];
    const double x = low, y = high;
    low = x * cosine - y * sine;
    high = y * cosine + x * sine;
  }
}

CacheOutcome expected_of(const CacheCase& c, CacheOutcome o) {
  const Values table = c.table();
  o.out.assign(size_t(c.N() * c.H * c.D), 0);
  for (int64_t n = 0; n < c.N(); ++n) {
    const int64_t s = c.sequences[size_t(n)], t = c.positions[size_t(n)], row = n * c.qkv_stride();
    if (s < 0) continue;
    for (int64_t h = 0; h < c.H + c.K; ++h) rotate_by_hand(o.qkv, row + h * c.D, c, table, t);
    for (int64_t k = 0; k < c.K; ++k) {
      for (int64_t d = 0; d < c.D; ++d) {
        o.keys[size_t(c.key(s, k, t) + d)] = o.qkv[size_t(row + (c.H + k) * c.D + d)];
        o.values[size_t(c.key(s, k, t) + d)] = o.qkv[size_t(row + (c.H + c.K + k) * c.D + d)];
      }
    }
  }
  for (int64_t n = 0; n < c.N(); ++n) {
    const int64_t s = c.sequences[size_t(n)];
    if (s < 0) continue;
    for (int64_t h = 0; h < c.H; ++h) {
      Values p;
      for (int64_t t = 0; t <= c.positions[size_t(n)]; ++t) {
        double score = 0;
        for (int64_t d = 0; d < c.D; ++d) {
          score += o.qkv[size_t(n * c.qkv_stride() + h * c.D + d)] *
                   o.keys[size_t(c.key(s, h / (c.H / c.K), t) + d)];
        }
        p.push_back(score / std::sqrt(double(c.D)));
      }
      const double max = *std::ranges::max_element(p);
      double sum = 0;
      for (double& x : p) sum += x = std::exp(x - max);
      for (size_t t = 0; t < p.size(); ++t) {
        for (int64_t d = 0; d < c.D; ++d) {
          o.out[size_t((n * c.H + h) * c.D + d)] +=
              p[t] / sum * o.values[size_t(c.key(s, h / (c.H / c.K), int64_t(t)) + d)];
        }
      }
    }
  }
  return o;
}

// Rows that fill up must be left alone: what they had on the way in is what they have.
void require_cache(const CacheCase& c) {
  const CacheOutcome given{.qkv = random_values(c.N() * c.qkv_stride(), 1),
                           .keys = random_values(c.cache_count(), 2),
                           .values = random_values(c.cache_count(), 3),
                           .out = {}};
  const CacheOutcome expected = expected_of(c, given);
  const Tolerance close{.of_largest = 1e-5};
  require_everywhere(
      [&](Rig& rig) {
        const Shape shape{c.S, c.K, c.T, c.D};
        const backend::KeyValueCache cache{
            .keys = rig.upload(given.keys, shape),
            .values = rig.upload(given.values, shape),
            .sequences = rig.upload(c.sequences, {c.N()}),
            .positions = rig.upload(c.positions, {c.N()}),
        };
        const Tensor qkv = rig.upload(given.qkv, {c.N(), c.qkv_stride()});
        const Tensor out = rig.upload(Values(size_t(c.N() * c.H * c.D)), {c.N(), c.H * c.D});
        rig.ops().cache_append({.cache = cache,
                                .qkv = qkv,
                                .table = rig.upload(c.table(), {c.T, c.D}),
                                .heads = c.H,
                                .kv_heads = c.K,
                                .head_size = c.D},
                               rig.stream());
        rig.ops().cache_attention({.cache = cache,
                                   .out = out,
                                   .qkv = qkv,
                                   .heads = c.H,
                                   .kv_heads = c.K,
                                   .head_size = c.D},
                                  rig.stream());
        return std::vector<Values>{rig.download(qkv), rig.download(cache.keys),
                                   rig.download(cache.values), rig.download(out)};
      },
      {{expected.qkv, close},
       {expected.keys, close},
       {expected.values, close},
       {expected.out, close}});
}

}  // namespace

TEST_CASE("cache: one row of one sequence, at its begin and at its end") {
  for (const int32_t position : {0, 6}) {
    CacheCase c = make_cache_case(1, 7, 1, 1, 2);
    c.add(0, position);
    require_cache(c);
  }
}

TEST_CASE("cache: a whole prompt, and one that goes on") {
  CacheCase c = make_cache_case(2, 20, 6, 2, 10);
  c.add(1, 0, 20);
  c.add(0, 5, 9);
  require_cache(c);
}

TEST_CASE("cache: sequences of different lengths in one batch, and rows that fill up") {
  CacheCase c = make_cache_case(5, 40, 4, 2, 8);
  c.add(3, 17);
  c.fill_up();
  c.add(0, 0);
  c.add(4, 39);
  c.add(1, 3, 5);
  // Neighbours in the batch that are none in a sequence.
  c.add(2, 8);
  c.add(2, 7);
  c.fill_up();
  require_cache(c);
}

TEST_CASE("cache: more rows than a block of queries, and more keys than a tile") {
  CacheCase c = make_cache_case(1, 1100, 4, 1, 6);
  c.add(0, 900, 200);
  require_cache(c);
  CacheCase single = make_cache_case(1, 1100, 3, 1, 14);
  single.add(0, 1099);
  require_cache(single);
}
