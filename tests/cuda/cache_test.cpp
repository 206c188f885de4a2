// Attention against a cache: CUDA's against the CPU's.
#include "cuda/pair.h"
#include "ops/cache_case.h"

using namespace cuda_test;

namespace {

using ops_test::CacheCase;
using ops_test::make_cache_case;

void require_same_cache(const CacheCase& c) {
  const Values qkv_values = bf16_values(c.N() * c.qkv_stride(), 1);
  const Values keys = bf16_values(c.cache_count(), 2), values = bf16_values(c.cache_count(), 3);
  const auto cache_of = [&](Side& side) {
    const Shape shape{c.S, c.K, c.T, c.D};
    return backend::KeyValueCache{.keys = side.compute(keys, shape),
                                  .values = side.compute(values, shape),
                                  .sequences = side.int32(c.sequences, {c.N()}),
                                  .positions = side.int32(c.positions, {c.N()})};
  };
  require_same(
      [&](Side& side) {
        const backend::KeyValueCache cache = cache_of(side);
        const Tensor qkv = side.compute(qkv_values, {c.N(), c.qkv_stride()});
        side.ops().cache_append({.cache = cache,
                                 .qkv = qkv,
                                 .table = side.fp32(c.table(), {c.T, c.D}),
                                 .heads = c.H,
                                 .kv_heads = c.K,
                                 .head_size = c.D},
                                side.stream());
        return std::vector<Values>{side.download(qkv), side.download(cache.keys),
                                   side.download(cache.values)};
      },
      // Rounded once; where products cancel, their own size counts.
      std::vector<Tolerance>(3, {.relative = kBf16Rounding, .of_largest = 1e-6}));
  require_same(
      [&](Side& side) {
        const backend::KeyValueCache cache = cache_of(side);
        const Tensor out = side.compute(Values(size_t(c.N() * c.H * c.D)), {c.N(), c.H * c.D});
        side.ops().cache_attention({.cache = cache,
                                    .out = out,
                                    .qkv = side.compute(qkv_values, {c.N(), c.qkv_stride()}),
                                    .heads = c.H,
                                    .kv_heads = c.K,
                                    .head_size = c.D},
                                   side.stream());
        return std::vector<Values>{side.download(out)};
      },
      {{.relative = kBf16Rounding, .of_largest = 1e-5}});
}

}  // namespace

TEST_CASE("cache: one key, and heads of odd widths") {
  CacheCase c = make_cache_case(1, 3, 2, 1, 6);
  c.add(0, 0);
  require_same_cache(c);
}

TEST_CASE("cache: sequences of different lengths, prompts, and rows that fill up") {
  CacheCase c = make_cache_case(4, 150, 4, 2, 64);
  c.add(2, 149);
  c.fill_up();
  c.add(0, 0, 3);
  c.add(3, 31, 2);
  c.add(1, 127);
  c.fill_up();
  require_same_cache(c);
}

TEST_CASE("cache: wide heads, and more keys than the warps take at once") {
  CacheCase c = make_cache_case(1, 300, 2, 1, 256);
  c.add(0, 299);
  require_same_cache(c);
  CacheCase odd = make_cache_case(1, 140, 3, 1, 50);
  odd.add(0, 135, 4);
  require_same_cache(odd);
}
