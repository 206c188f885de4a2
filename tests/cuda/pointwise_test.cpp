// Rotary embedding, SwiGLU, addition and conversion on CUDA against the CPU.
#include <bit>
#include <fmt/format.h>

#include "cuda/pair.h"

using namespace cuda_test;

namespace {

// Results are the CPU's, rounded once. Where terms cancel, an fp32 rounding of the larger remains.
constexpr Tolerance kRoundedOnce{.relative = 1.01 * kBf16Rounding, .of_largest = 1e-6};

struct Rope {
  int64_t rows, T, H, K, D;
  int64_t stride() const { return (H + 2 * K) * D; }
};

Values rope_table(const Rope& r) {
  Values table;
  for (int64_t position = 0; position < r.T; ++position) {
    Values sines;
    for (int64_t j = 0; j < r.D / 2; ++j) {
      const double angle = double(position) * std::pow(10000.0, -2.0 * double(j) / double(r.D));
      table.push_back(float(std::cos(angle)));
      sines.push_back(float(std::sin(angle)));
    }
    table.insert(table.end(), sines.begin(), sines.end());
  }
  return table;
}

// A tensor that begins one element behind where it was allocated, between 16-byte boundaries.
Tensor shifted(const Tensor& longer) {
  return longer.reshape({longer.element_count()}).slice(1, {longer.element_count() - 1});
}

// The bits of bf16 numbers, as Side::bytes takes them.
std::vector<uint8_t> as_bytes(const std::vector<uint16_t>& halves) {
  std::vector<uint8_t> bytes;
  for (uint16_t half : halves) {
    bytes.push_back(uint8_t(half & 0xff));
    bytes.push_back(uint8_t(half >> 8));
  }
  return bytes;
}

}  // namespace

// Heads with and without packs, one and several heads per thread, more rows than a sequence.
TEST_CASE("pointwise: rope and its inverse equal the CPU's and leave the values") {
  for (const Rope& r : {Rope{1, 1, 1, 1, 2}, Rope{12, 4, 2, 1, 6}, Rope{10, 5, 4, 2, 22},
                        Rope{6, 3, 3, 1, 16}, Rope{5, 5, 33, 8, 128}, Rope{3, 2, 4, 4, 256}}) {
    INFO(fmt::format("rows {} T {} H {} K {} D {}", r.rows, r.T, r.H, r.K, r.D));
    const Values table = rope_table(r), qkv = bf16_values(r.rows * r.stride(), 1);
    require_same(
        [&](Side& side) {
          std::vector<Values> results;
          for (bool inverse : {false, true}) {
            const Tensor x = side.compute(qkv, {r.rows, r.stride()});
            side.ops().rope({.qkv = x,
                             .table = side.fp32(table, {r.T, r.D}),
                             .sequence_length = r.T,
                             .heads = r.H,
                             .kv_heads = r.K,
                             .head_size = r.D,
                             .inverse = inverse},
                            side.stream());
            const Values found = side.download(x);
            Values rotated, left;
            for (size_t i = 0; i < found.size(); ++i) {
              const bool is_value = int64_t(i) % r.stride() >= (r.H + r.K) * r.D;
              (is_value ? left : rotated).push_back(found[i]);
            }
            results.push_back(rotated);
            results.push_back(left);
          }
          return results;
        },
        {kRoundedOnce, {}, kRoundedOnce, {}});
  }
}

// Widths of fewer and of more than one pack per thread, and without packs.
TEST_CASE("pointwise: swiglu forward and backward equal the CPU's") {
  const int64_t sizes[][2] = {{1, 1}, {3, 7}, {5, 8}, {3, 1001}, {4, 264}, {2, 2056}};
  for (const auto& [rows, width] : sizes) {
    INFO(fmt::format("rows {} width {}", rows, width));
    const Shape wide{rows, 2 * width}, shape{rows, width};
    const Values dy = bf16_values(rows * width, 2);
    require_same(
        [&, rows = rows, width = width](Side& side) {
          std::vector<Values> results;
          for (double deviation : {1.0, 0.0, 40.0, 1e12}) {
            const Values gate_up = bf16_values(rows * 2 * width, 1, deviation);
            const Tensor x = side.compute(gate_up, wide), alone = side.compute(gate_up, wide);
            const Tensor y = side.compute_out(shape), again = side.compute_out(shape),
                         d = side.compute(dy, shape);
            side.ops().swiglu_forward({.out = y, .gate_up = x}, side.stream());
            side.ops().swiglu_backward({.gate_up = x, .out = again, .out_gradient = d},
                                       side.stream());
            side.ops().swiglu_backward({.gate_up = alone, .out_gradient = d}, side.stream());
            results.push_back(side.download(y));
            results.push_back(side.download(x));
            REQUIRE(results.end()[-2] == side.download(again));
            REQUIRE(results.back() == side.download(alone));
          }
          return results;
        },
        std::vector<Tolerance>(8, kRoundedOnce));
  }
}

TEST_CASE("pointwise: rope and swiglu of rows that lie between the boundaries") {
  const Rope r{3, 3, 2, 1, 16};
  const Values gate_up = bf16_values(3 * 32 + 1, 1), dy = bf16_values(3 * 16 + 1, 2);
  require_same(
      [&](Side& side) {
        const Tensor x = shifted(side.compute(gate_up, {3 * 32 + 1})).reshape({3, 32});
        const Tensor d = shifted(side.compute(dy, {3 * 16 + 1})).reshape({3, 16});
        const Tensor y = side.compute_out({3, 16});
        side.ops().swiglu_forward({.out = y, .gate_up = x}, side.stream());
        side.ops().swiglu_backward({.gate_up = x, .out_gradient = d}, side.stream());
        const Tensor qkv =
            shifted(side.compute(bf16_values(3 * r.stride() + 1, 3), {3 * r.stride() + 1}));
        side.ops().rope({.qkv = qkv,
                         .table = side.fp32(rope_table(r), {r.T, r.D}),
                         .sequence_length = r.T,
                         .heads = r.H,
                         .kv_heads = r.K,
                         .head_size = r.D},
                        side.stream());
        return std::vector<Values>{side.download(y), side.download(x), side.download(qkv)};
      },
      {kRoundedOnce, kRoundedOnce, kRoundedOnce});
}

// From one element to more than the grid has threads.
TEST_CASE("pointwise: add sums bf16 and fp32, and zero clears") {
  for (int64_t count : {1, 7, 8, 1003, 300'001}) {
    for (bool is_shifted : {false, true}) {
      if (is_shifted && count == 1) continue;
      INFO(fmt::format("count {} shifted {}", count, is_shifted));
      const Values a = bf16_values(count, 1), b = bf16_values(count, 2);
      require_same(
          [&](Side& side) {
            auto place = [&](const Tensor& t) { return is_shifted ? shifted(t) : t; };
            const Tensor x = side.compute(a, {count}), wide = side.fp32(a, {count}),
                         cleared = side.compute(a, {count});
            side.ops().add({.out = place(x), .in = place(side.compute(b, {count}))}, side.stream());
            side.ops().add({.out = place(wide), .in = place(side.fp32(b, {count}))}, side.stream());
            side.ops().zero(place(cleared), side.stream());
            return std::vector<Values>{side.download(x), side.download(wide),
                                       side.download(cleared)};
          },
          {{.relative = kBf16Rounding}, {}, {}});
    }
  }
}

TEST_CASE("pointwise: cast has the CPU's bits in each direction") {
  for (int64_t count : {1, 7, 8, 1003, 300'001}) {
    for (bool is_shifted : {false, true}) {
      if (is_shifted && count == 1) continue;
      INFO(fmt::format("count {} shifted {}", count, is_shifted));
      const Values in = ops_test::random_values(count, 1);
      const std::vector<uint8_t> ones(size_t(2 * count), 0xff), other(size_t(2 * count), 0x3a);
      require_same(
          [&](Side& side) {
            auto place = [&](const Tensor& t) { return is_shifted ? shifted(t) : t; };
            const Tensor wide = side.fp32(in, {count}), back = side.fp32(in, {count}),
                         copied = side.fp32(Values(size_t(count), 5), {count}),
                         narrow = side.bytes(other, DType::kBfloat16, {count}),
                         narrow_copied = side.bytes(other, DType::kBfloat16, {count});
            side.ops().cast({.out = place(narrow), .in = place(wide)}, side.stream());
            side.ops().cast({.out = place(narrow_copied), .in = place(narrow)}, side.stream());
            side.ops().cast({.out = place(back), .in = place(narrow)}, side.stream());
            side.ops().cast({.out = place(copied), .in = place(wide)}, side.stream());
            return std::vector<Values>{side.download(narrow), side.download(narrow_copied),
                                       side.download(back), side.download(copied)};
          },
          {{}, {}, {}, {}});
    }
  }
}

TEST_CASE("pointwise: cast to bf16 rounds to nearest, ties to even, and keeps what is not finite") {
  const double infinity = std::numeric_limits<double>::infinity();
  const Values in{0.0,        1.0,        0x1.01p0, 0x1.03p0,  0x1.010002p0, -0x1.01p0,
                  0x1.fep127, 0x1.ffp127, infinity, -infinity, 0x1p-149};
  const Values expected{0.0,        1.0,      1.0,      0x1.04p0,  0x1.02p0, -1.0,
                        0x1.fep127, infinity, infinity, -infinity, 0.0};
  const Shape shape{int64_t(in.size())};
  const std::vector<uint8_t> ones = as_bytes(std::vector<uint16_t>(in.size(), 0xffff));
  require_same(
      [&](Side& side) {
        const Tensor narrow = side.bytes(ones, DType::kBfloat16, shape);
        side.ops().cast({.out = narrow, .in = side.fp32(in, shape)}, side.stream());
        const Values found = side.download(narrow);
        REQUIRE(found == expected);
        const Tensor nan = side.bytes(as_bytes({0}), DType::kBfloat16, {1});
        side.ops().cast(
            {.out = nan, .in = side.fp32({std::numeric_limits<double>::quiet_NaN()}, {1})},
            side.stream());
        REQUIRE(std::isnan(side.download(nan)[0]));
        return std::vector<Values>{};
      },
      {});
}
