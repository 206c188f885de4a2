// Rotary embedding, SwiGLU, addition and conversion against their formulas in double.
#include <bit>
#include <fmt/format.h>

#include "cpu/vector_math.h"
#include "ops/rig.h"

using namespace ops_test;

namespace {

struct Rope {
  int64_t rows, T, H, K, D;
  int64_t stride() const { return (H + 2 * K) * D; }
};

// D/2 cosines, D/2 sines for each position.
Values rope_table(const Rope& r) {
  Values table;
  for (int64_t position = 0; position < r.T; ++position) {
    Values sines;
    for (int64_t j = 0; j < r.D / 2; ++j) {
      const double angle = double(position) * std::pow(500000.0, -2.0 * double(j) / double(r.D));
      table.push_back(float(std::cos(angle)));
      sines.push_back(float(std::sin(angle)));
    }
    table.insert(table.end(), sines.begin(), sines.end());
  }
  return table;
}

Values rotate(const Rope& r, const Values& table, Values qkv, bool inverse) {
  for (int64_t n = 0; n < r.rows; ++n) {
    for (int64_t h = 0; h < r.H + r.K; ++h) {
      for (int64_t j = 0; j < r.D / 2; ++j) {
        const size_t low = size_t(n * r.stride() + h * r.D + j), high = low + size_t(r.D / 2);
        const size_t at = size_t(n % r.T * r.D + j);
        const double cosine = table[at], sine = (inverse ? -1 : 1) * table[at + size_t(r.D / 2)];
        const double x = qkv[low], y = qkv[high];
        qkv[low] = x * cosine - y * sine;
        qkv[high] = y * cosine + x * sine;
      }
    }
  }
  return qkv;
}

double reference_sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

Values swiglu(const Values& gate_up, int64_t width) {
  Values out;
  for (size_t row = 0; row < gate_up.size(); row += size_t(2 * width)) {
    for (size_t f = 0; f < size_t(width); ++f) {
      const double gate = gate_up[row + f];
      out.push_back(gate * reference_sigmoid(gate) * gate_up[row + size_t(width) + f]);
    }
  }
  return out;
}

Values swiglu_backward(const Values& gate_up, const Values& dy, int64_t width) {
  Values gradient(gate_up.size());
  for (size_t row = 0; row < gate_up.size() / size_t(2 * width); ++row) {
    for (size_t f = 0; f < size_t(width); ++f) {
      const size_t gate = row * size_t(2 * width) + f, up = gate + size_t(width);
      const double g = gate_up[gate], s = reference_sigmoid(g), d = dy[row * size_t(width) + f];
      gradient[gate] = d * gate_up[up] * (s + g * s * (1 - s));
      gradient[up] = d * g * s;
    }
  }
  return gradient;
}

}  // namespace

TEST_CASE("exp_fast is within 2 ulp, and 0, infinite or NaN where it should be") {
  double worst = 0;
  for (float x = -87.3f; x < 88.0f; x += 0.00137f) {
    const double expected = std::exp(double(x));
    const float rounded = float(expected);
    const double ulp = std::nextafter(rounded, std::numeric_limits<float>::infinity()) - rounded;
    worst = std::max(worst, std::abs(double(cpu::exp_fast(x)) - expected) / ulp);
  }
  INFO("worst error " << worst << " ulp");
  REQUIRE(worst <= 2);
  const float infinity = std::numeric_limits<float>::infinity();
  REQUIRE(cpu::exp_fast(0) == 1);
  REQUIRE(cpu::exp_fast(-infinity) == 0);
  REQUIRE(cpu::exp_fast(-88) == 0);
  REQUIRE(cpu::exp_fast(infinity) == infinity);
  REQUIRE(std::isnan(cpu::exp_fast(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("rope rotates queries and keys, and its inverse is the gradient") {
  for (const Rope& r : {Rope{1, 1, 1, 1, 2}, Rope{12, 4, 2, 1, 6}, Rope{150, 75, 4, 2, 22}}) {
    INFO(fmt::format("rows {} T {} H {} K {} D {}", r.rows, r.T, r.H, r.K, r.D));
    const Values table = rope_table(r);
    const Values qkv = random_values(r.rows * r.stride(), 1);
    if (r.rows <= 12) {
      const Values weights = random_values(r.rows * r.stride(), 2);
      const Values differences = central_differences(
          [&](const Values& x) { return rotate(r, table, x, false); }, qkv, weights);
      require_close(rotate(r, table, weights, true), differences, kDifferences);
    }
    for (bool inverse : {false, true}) {
      require_everywhere(
          [&](Rig& rig) {
            const Tensor x = rig.upload(qkv, {r.rows, r.stride()});
            rig.ops().rope({.qkv = x,
                            .table = rig.upload(table, {r.T, r.D}),
                            .sequence_length = r.T,
                            .heads = r.H,
                            .kv_heads = r.K,
                            .head_size = r.D,
                            .inverse = inverse},
                           rig.stream());
            return std::vector<Values>{rig.download(x)};
          },
          {{rotate(r, table, qkv, inverse), {.of_largest = 2e-7}}});
    }
  }
}

TEST_CASE("the reference gradient of swiglu agrees with central differences") {
  const Values gate_up = random_values(2 * 10, 1, 3), dy = random_values(2 * 5, 2);
  const Values differences =
      central_differences([](const Values& x) { return swiglu(x, 5); }, gate_up, dy);
  require_close(swiglu_backward(gate_up, dy, 5), differences, kDifferences);
}

TEST_CASE("swiglu forward and backward equal their formulas") {
  const int64_t sizes[][2] = {{1, 1}, {3, 7}, {67, 1001}};
  for (const auto& [rows, width] : sizes) {
    for (double deviation : {1.0, 0.0, 40.0, 1e12}) {
      INFO(fmt::format("rows {} width {} deviation {}", rows, width, deviation));
      const Values gate_up = random_values(rows * 2 * width, 1, deviation),
                   dy = random_values(rows * width, 2);
      const Values out = swiglu(gate_up, width), gradient = swiglu_backward(gate_up, dy, width);
      const Tolerance tolerance{.relative = 1e-6, .of_largest = 1e-7};
      const Shape wide{rows, 2 * width}, narrow{rows, width};
      require_everywhere(
          [&](Rig& rig) {
            const Tensor x = rig.upload(gate_up, wide), y = rig.poisoned(narrow);
            rig.ops().swiglu_forward({.out = y, .gate_up = x}, rig.stream());
            const Tensor y_again = rig.poisoned(narrow), x_alone = rig.upload(gate_up, wide),
                         d = rig.upload(dy, narrow);
            rig.ops().swiglu_backward({.gate_up = x, .out = y_again, .out_gradient = d},
                                      rig.stream());
            rig.ops().swiglu_backward({.gate_up = x_alone, .out_gradient = d}, rig.stream());
            return std::vector<Values>{rig.download(y), rig.download(x), rig.download(y_again),
                                       rig.download(x_alone)};
          },
          {{out, tolerance}, {gradient, tolerance}, {out, tolerance}, {gradient, tolerance}});
    }
  }
}

TEST_CASE("add sums, zero clears, cast between equal types copies") {
  for (int64_t count : {1, 7, 70'001}) {
    const Values a = random_values(count, 1), b = random_values(count, 2);
    Values sum = a;
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
    require_everywhere(
        [&](Rig& rig) {
          const Tensor x = rig.upload(a, {count}), y = rig.upload(b, {count});
          const Tensor copied = rig.poisoned({count}), cleared = rig.poisoned({count});
          rig.ops().cast({.out = copied, .in = y}, rig.stream());
          rig.ops().add({.out = x, .in = y}, rig.stream());
          rig.ops().zero(cleared, rig.stream());
          return std::vector<Values>{rig.download(x), rig.download(copied), rig.download(cleared)};
        },
        {{sum, {.relative = 1e-7, .of_largest = 1e-7}}, {b, {}}, {Values(size_t(count)), {}}});
  }
}

TEST_CASE("cast to bf16 rounds to nearest, ties to even, and back is exact") {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> in{0.0f,
                              -0.0f,
                              1.0f,
                              0x1.01p0f,
                              0x1.03p0f,
                              0x1.010002p0f,
                              -0x1.01p0f,
                              0x1.fep127f,
                              0x1.ffp127f,
                              infinity,
                              -infinity,
                              0x1p-149f,
                              std::bit_cast<float>(0x7fffffff)};
  const std::vector<uint16_t> expected{0x0000, 0x8000, 0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xbf80,
                                       0x7f7f, 0x7f80, 0x7f80, 0xff80, 0x0000, 0x7fff};
  for (int threads : {1, 2}) {
    Rig rig(threads);
    const Shape shape{int64_t(in.size())};
    const Tensor narrow =
        rig.upload_raw(std::vector<uint16_t>(in.size()).data(), DType::kBfloat16, shape);
    rig.ops().cast({.out = narrow, .in = rig.upload_raw(in.data(), DType::kFloat32, shape)},
                   rig.stream());
    std::vector<uint16_t> bits(in.size());
    rig.download_raw(bits.data(), narrow);
    REQUIRE(bits == expected);

    const Tensor wide = rig.poisoned(shape);
    rig.ops().cast({.out = wide, .in = narrow}, rig.stream());
    std::vector<uint32_t> wide_bits(in.size());
    rig.download_raw(wide_bits.data(), wide);
    for (size_t i = 0; i < bits.size(); ++i) REQUIRE(wide_bits[i] == uint32_t(bits[i]) << 16);
  }
}

TEST_CASE("pointwise benchmark", "[.benchmark]") {
  Rig rig(0);
  const int64_t rows = 4096, width = 1408;
  const double row_bytes = 4.0 * double(rows);
  const Tensor gate_up = rig.upload(random_values(rows * 2 * width, 1), {rows, 2 * width});
  const Tensor out = rig.upload(random_values(rows * width, 2), {rows, width}),
               dy = rig.upload(random_values(rows * width, 3), {rows, width});
  const std::string shape = fmt::format("{}x{}", rows, width);
  run_benchmark(rig,
                {.name = "swiglu_forward", .shape = shape, .bytes = 3 * row_bytes * double(width)},
                [&] { rig.ops().swiglu_forward({.out = out, .gate_up = gate_up}, rig.stream()); });
  run_benchmark(rig,
                {.name = "swiglu_backward", .shape = shape, .bytes = 6 * row_bytes * double(width)},
                [&] {
                  rig.ops().swiglu_backward({.gate_up = gate_up, .out = out, .out_gradient = dy},
                                            rig.stream());
                });
  run_benchmark(rig, {.name = "add", .shape = shape, .bytes = 3 * row_bytes * double(width)},
                [&] { rig.ops().add({.out = out, .in = dy}, rig.stream()); });
  const Rope r{rows, 512, 8, 2, 64};
  const Tensor qkv = rig.upload(random_values(rows * r.stride(), 4), {rows, r.stride()});
  const Tensor table = rig.upload(rope_table(r), {r.T, r.D});
  run_benchmark(
      rig,
      {.name = "rope", .shape = fmt::format("{} H8 K2 D64", rows), .bytes = 2 * row_bytes * 640},
      [&] {
        rig.ops().rope({.qkv = qkv,
                        .table = table,
                        .sequence_length = r.T,
                        .heads = r.H,
                        .kv_heads = r.K,
                        .head_size = r.D},
                       rig.stream());
      });
}
