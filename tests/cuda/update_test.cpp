// Sums, clipping and the updates, against the CPU's. Both compute in fp32, but round differently
// where one contracts a product and a sum and the other does not.
#include <fmt/format.h>

#include "backend/device.h"
#include "backend/quantization.h"
#include "base/math.h"
#include "cuda/comparisons.h"

using namespace cuda_test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A few roundings of fp32, 6e-8 each.
constexpr double kSinglePrecision = 5e-7;

// Lengths around a quad, a block of moments and a block of threads.
const int64_t kCounts[] = {1, 3, 4, 255, 257, 1023, 1024, 4099, 20'001};

// A view of all but the first `offset` and the last 4 elements, which nobody may touch.
struct Guarded {
  Tensor whole, view;
};

class Arrays {
 public:
  Arrays(Side& side, int64_t count, int64_t offset) : side_(side), count_(count), offset_(offset) {}

  Guarded fp32(const Values& values) const {
    return guarded(side_.fp32(padded(values, count_), {offset_ + count_ + 4}));
  }
  Guarded bf16(const Values& values) const {
    std::vector<uint8_t> bytes;
    for (const double value : padded(values, count_)) {
      const uint16_t bits = backend::to_bfloat16(float(value));
      bytes.push_back(uint8_t(bits & 0xff));
      bytes.push_back(uint8_t(bits >> 8));
    }
    return guarded(side_.bytes(bytes, DType::kBfloat16, {offset_ + count_ + 4}));
  }
  Guarded codes(uint8_t largest) const {
    std::vector<uint8_t> codes(size_t(offset_ + count_ + 4));
    // Every code, many zeros, and the largest one in each block.
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = i % 3 == 0 ? 0 : uint8_t(i * 77);
      if ((i - size_t(offset_)) % 256 == 100) codes[i] = largest;
    }
    return guarded(side_.bytes(codes, DType::kUint8, {offset_ + count_ + 4}));
  }
  Guarded scales(uint64_t seed) const {
    const int64_t block_count = base::div_ceil(count_, backend::kMomentBlock);
    Values values = ops_test::random_values(block_count, seed);
    for (double& value : values) value = float(0.01 + std::abs(value));
    const Tensor whole = side_.fp32(padded(values, block_count), {offset_ + block_count + 4});
    return {whole, whole.slice(offset_, {block_count})};
  }

 private:
  Values padded(const Values& values, int64_t count) const {
    REQUIRE(int64_t(values.size()) == count);
    Values all(size_t(offset_), 3.0);
    all.insert(all.end(), values.begin(), values.end());
    all.insert(all.end(), 4, 3.0);
    return all;
  }
  Guarded guarded(const Tensor& whole) const { return {whole, whole.slice(offset_, {count_})}; }

  Side& side_;
  const int64_t count_, offset_;
};

enum class Copy { kNone, kFloat32, kBfloat16 };

struct UpdateCase {
  int64_t count, offset;
  DType parameter = DType::kFloat32, moments = DType::kFloat32;
  Copy copy = Copy::kNone;
  double gradient_scale = 0.5;
  bool zero_gradient = true;
  std::string text() const {
    return fmt::format("count {} offset {} dtypes {} {} copy {} scale {} zero {}", count, offset,
                       int(parameter), int(moments), int(copy), gradient_scale, zero_gradient);
  }
};

// What three steps leave: parameter, gradient, m, v, copy, scales.
std::vector<Values> run_adamw(Side& side, const UpdateCase& c) {
  const Arrays arrays(side, c.count, c.offset);
  const Values start = ops_test::random_values(c.count, 1);
  Values squares = ops_test::random_values(c.count, 2);
  for (double& x : squares) x = float(x * x);
  const bool is_coded = c.moments == DType::kUint8;
  const Guarded parameter =
      c.parameter == DType::kFloat32 ? arrays.fp32(start) : arrays.bf16(start);
  const Guarded m =
      is_coded ? arrays.codes(0xff) : arrays.fp32(ops_test::random_values(c.count, 3));
  const Guarded v = is_coded ? arrays.codes(0xff) : arrays.fp32(squares);
  std::vector<Guarded> all{parameter, m, v};
  backend::AdamwArgs args{.parameter = parameter.view,
                          .m = m.view,
                          .v = v.view,
                          .gradient_scale = side.fp32({c.gradient_scale}, {1}),
                          .learning_rate = 0.01f,
                          .weight_decay = 0.1f,
                          .zero_gradient = c.zero_gradient,
                          .rounding_seed = 99};
  if (c.copy != Copy::kNone) {
    all.push_back(c.copy == Copy::kFloat32 ? arrays.fp32(start) : arrays.bf16(start));
    args.copy = all.back().view;
  }
  if (is_coded) {
    const Guarded m_scale = arrays.scales(4), v_scale = arrays.scales(5);
    args.m_scale = m_scale.view;
    args.v_scale = v_scale.view;
    all.insert(all.end(), {m_scale, v_scale});
  }
  for (int64_t step = 1; step <= (is_coded ? 1 : 3); ++step) {
    Values gradient = ops_test::random_values(c.count, 10 + uint64_t(step));
    for (size_t i = 0; i < gradient.size(); i += 2) gradient[i] = float(1e-6 * gradient[i]);
    all.push_back(arrays.fp32(gradient));
    args.gradient = all.back().view;
    args.step = step;
    side.ops().adamw(args, side.stream());
  }
  std::vector<Values> out;
  for (const Guarded& one : all) out.push_back(side.download(one.whole));
  return out;
}

// The tolerance of each output of run_adamw().
std::vector<Tolerance> adamw_tolerances(const UpdateCase& c) {
  const bool is_coded = c.moments == DType::kUint8;
  // Where the sum to be rounded differs in its last bit, bf16 may go to the other neighbour, and a
  // moment to the next code: require_few_differences() says how often.
  const Tolerance parameter = c.parameter == DType::kFloat32
                                  ? Tolerance{.of_largest = kSinglePrecision}
                                  : Tolerance{.relative = 2 * kBf16Rounding};
  const Tolerance moment =
      is_coded ? Tolerance{.absolute = 1} : Tolerance{.of_largest = kSinglePrecision};
  std::vector<Tolerance> tolerances{parameter, moment, moment};
  if (c.copy == Copy::kFloat32) tolerances.push_back({.of_largest = kSinglePrecision});
  if (c.copy == Copy::kBfloat16) tolerances.push_back({.relative = 2 * kBf16Rounding});
  if (is_coded) tolerances.insert(tolerances.end(), 2, {.relative = kSinglePrecision});
  tolerances.insert(tolerances.end(), is_coded ? 1 : 3, {});
  return tolerances;
}

// Parameter, gradient, copy.
std::vector<Values> run_sgd(Side& side, const UpdateCase& c) {
  const Arrays arrays(side, c.count, c.offset);
  const Values start = ops_test::random_values(c.count, 1);
  const Guarded parameter = arrays.fp32(start);
  const Guarded gradient = arrays.fp32(ops_test::random_values(c.count, 2));
  const Guarded copy = c.copy == Copy::kBfloat16 ? arrays.bf16(start) : arrays.fp32(start);
  side.ops().sgd({.parameter = parameter.view,
                  .gradient = gradient.view,
                  .copy = c.copy == Copy::kNone ? Tensor{} : copy.view,
                  .gradient_scale = side.fp32({c.gradient_scale}, {1}),
                  .learning_rate = 0.1f,
                  .weight_decay = 0.01f,
                  .zero_gradient = c.zero_gradient},
                 side.stream());
  return {side.download(parameter.whole), side.download(gradient.whole), side.download(copy.whole)};
}

void require_few_differences(const Values& found, const Values& expected) {
  size_t differences = 0;
  for (size_t i = 0; i < found.size(); ++i) differences += found[i] != expected[i];
  REQUIRE(double(differences) <= 1 + 1e-3 * double(found.size()));
}

void add_adamw(Comparisons& comparisons, const UpdateCase& c) {
  const auto expected = std::make_shared<std::vector<Values>>();  // The CPU runs first.
  comparisons.add(
      c.text(),
      [=](Side& side) {
        std::vector<Values> out = run_adamw(side, c);
        if (expected->empty()) *expected = out;
        if (c.parameter == DType::kBfloat16) require_few_differences(out[0], expected->at(0));
        if (c.moments == DType::kUint8) {
          require_few_differences(out[1], expected->at(1));
          require_few_differences(out[2], expected->at(2));
        }
        return out;
      },
      adamw_tolerances(c));
}

}  // namespace

TEST_CASE("cuda update: sums") {
  Comparisons comparisons;
  for (const int64_t count : {1, 5, 4096, 4099, 300'001}) {
    for (const double deviation : {1.0, 0.0, 1e15}) {
      const Values in = ops_test::random_values(count, 1, deviation);
      double squares = 0, magnitude = 0;
      for (const double x : in) {
        squares += x * x;
        magnitude += std::abs(x);
      }
      for (const int64_t offset : {0, 1}) {
        comparisons.add(
            fmt::format("count {} offset {} deviation {}", count, offset, deviation),
            [=](Side& side) {
              const Tensor x = Arrays(side, count, offset).fp32(in).view;
              const Tensor sum = side.fp32_out({1}), square_sum = side.fp32_out({1}),
                           added = side.fp32({squares}, {1});
              side.ops().sum({.out = sum, .in = x}, side.stream());
              side.ops().sum_of_squares({.out = square_sum, .in = x}, side.stream());
              side.ops().sum_of_squares({.out = added, .in = x, .accumulate = true}, side.stream());
              return std::vector<Values>{side.download(sum), side.download(square_sum),
                                         side.download(added)};
            },
            // Quads are added in fp32: three roundings of 6e-8, and a last one of the result.
            {{.relative = 6e-8, .absolute = 1.8e-7 * magnitude},
             {.relative = 3e-7},
             {.relative = 3e-7}});
      }
    }
  }
  comparisons.require_same();
}

TEST_CASE("cuda update: sums of much that cancels") {
  // More partial sums than the last kernel has threads, and every thread meets all three thirds.
  const int64_t third = 400'000;
  Values in(size_t(3 * third), 1.0);
  std::fill_n(in.begin(), third, 0x1p30);
  std::fill_n(in.end() - third, third, -0x1p30);
  require_same(
      [&](Side& side) {
        const Tensor sum = side.fp32_out({1});
        side.ops().sum({.out = sum, .in = side.fp32(in, {3 * third})}, side.stream());
        return std::vector<Values>{side.download(sum)};
      },
      {{}});
}

TEST_CASE("cuda update: sums of tensors") {
  Comparisons comparisons;
  for (const int64_t count : {1, 3, 4, 1023, 4099, 150'001}) {
    for (const int64_t offset : {0, 1}) {
      for (const int tensor_count : {1, 2, 3, backend::kRanksMax}) {
        // The longest goes more than once around the emulated device's grid.
        if (count > 5000 && tensor_count != 2) continue;
        if (count != 1023 && tensor_count > 3) continue;
        for (const int target : {-1, 0, tensor_count - 1}) {  // -1: none of the tensors.
          comparisons.add(
              fmt::format("count {} offset {} tensors {} into {}", count, offset, tensor_count,
                          target),
              [=](Side& side) {
                const Arrays arrays(side, count, offset);
                std::vector<Guarded> all;
                std::vector<Tensor> in;
                for (int t = 0; t < tensor_count; ++t) {
                  all.push_back(arrays.fp32(ops_test::random_values(count, 1 + uint64_t(t))));
                  in.push_back(all.back().view);
                }
                if (target < 0) all.push_back(arrays.fp32(Values(size_t(count), kNan)));
                const Guarded& out = target < 0 ? all.back() : all[size_t(target)];
                side.ops().sum_tensors({.out = out.view, .in = in}, side.stream());
                std::vector<Values> found{side.download(out.whole)};
                for (const Guarded& one : all) {
                  if (one.view.data != out.view.data) found.push_back(side.download(one.whole));
                }
                return found;
              },
              // In one order, in fp32: the same bits, and what is only read is as it was.
              std::vector<Tolerance>(size_t(target < 0 ? tensor_count + 1 : tensor_count)));
        }
      }
    }
  }
  comparisons.require_same();
}

TEST_CASE("cuda update: clip_scale") {
  Comparisons comparisons;
  const auto run = [](const Values& sums, float norm_max) {
    return [=](Side& side) {
      const Tensor scale = side.fp32_out({1});
      side.ops().clip_scale({.scale = scale,
                             .sums_of_squares = side.fp32(sums, {int64_t(sums.size())}),
                             .norm_max = norm_max},
                            side.stream());
      return std::vector<Values>{side.download(scale)};
    };
  };
  for (const Values& sums : {Values{0.25}, Values{0}, Values{16}, Values{9, 0, 16},
                             Values(100, 0.7), Values{3e38, 3e38}}) {
    for (const float norm_max : {1.0f, 2.5f, 0.0f, -1.0f}) {
      comparisons.add("", run(sums, norm_max), {{.relative = 1.2e-7}});
    }
  }
  comparisons.require_same();
  Side side(make_device_under_test());
  for (const double bad : {kInfinity, -kInfinity, kNan}) {
    for (const float norm_max : {1.0f, 0.0f}) {
      Values sums(50, 1.0);
      sums[40] = bad;
      REQUIRE(std::isnan(run(sums, norm_max)(side)[0][0]));
    }
  }
}

TEST_CASE("cuda update: adamw with fp32 moments") {
  Comparisons comparisons;
  for (const int64_t count : kCounts) {
    for (const int64_t offset : {0, 1}) {
      add_adamw(comparisons, {.count = count, .offset = offset, .copy = Copy::kBfloat16});
      add_adamw(comparisons, {.count = count, .offset = offset, .parameter = DType::kBfloat16});
    }
  }
  add_adamw(comparisons,
            {.count = 1027, .offset = 0, .copy = Copy::kFloat32, .zero_gradient = false});
  add_adamw(comparisons, {.count = 1027, .offset = 4, .zero_gradient = false});
  comparisons.require_same();
}

TEST_CASE("cuda update: adamw with 8-bit moments") {
  Comparisons comparisons;
  for (const int64_t count : kCounts) {
    for (const int64_t offset : {0, 1}) {
      for (const DType parameter : {DType::kFloat32, DType::kBfloat16}) {
        add_adamw(comparisons,
                  {.count = count,
                   .offset = offset,
                   .parameter = parameter,
                   .moments = DType::kUint8,
                   .copy = parameter == DType::kFloat32 ? Copy::kBfloat16 : Copy::kNone});
      }
    }
  }
  // More blocks than the emulated device's grid has warps.
  add_adamw(comparisons, {.count = 200'001,
                          .offset = 0,
                          .parameter = DType::kBfloat16,
                          .moments = DType::kUint8,
                          .zero_gradient = false});
  comparisons.require_same();
}

TEST_CASE("cuda update: a NaN scale changes nothing but clears the gradient") {
  Comparisons comparisons;
  for (const DType parameter : {DType::kFloat32, DType::kBfloat16}) {
    for (const DType moments : {DType::kFloat32, DType::kUint8}) {
      for (const bool zero_gradient : {false, true}) {
        for (const int64_t offset : {0, 1}) {
          const UpdateCase c{.count = 3001,
                             .offset = offset,
                             .parameter = parameter,
                             .moments = moments,
                             .copy = parameter == DType::kFloat32 ? Copy::kFloat32 : Copy::kNone,
                             .gradient_scale = kNan,
                             .zero_gradient = zero_gradient};
          comparisons.add(
              c.text(), [=](Side& side) { return run_adamw(side, c); },
              std::vector<Tolerance>(adamw_tolerances(c).size()));
        }
      }
    }
  }
  comparisons.require_same();
}

TEST_CASE("cuda update: adamw of zeros, and of moments that do not change") {
  require_same(
      [](Side& side) {
        const int64_t count = 700;
        const Tensor p = side.fp32(ops_test::random_values(count, 1), {count});
        const std::vector<uint8_t> zeros(static_cast<size_t>(count));
        const Tensor m = side.bytes(zeros, DType::kUint8, {count}),
                     v = side.bytes(zeros, DType::kUint8, {count});
        const Tensor m_scale = side.fp32(Values(3), {3}), v_scale = side.fp32(Values(3), {3});
        side.ops().adamw({.parameter = p,
                          .gradient = side.fp32(Values(size_t(count)), {count}),
                          .m = m,
                          .v = v,
                          .gradient_scale = side.fp32({1}, {1}),
                          .m_scale = m_scale,
                          .v_scale = v_scale,
                          .learning_rate = 1},
                         side.stream());
        return std::vector<Values>{side.download(p), side.download(m), side.download(v),
                                   side.download(m_scale), side.download(v_scale)};
      },
      {{}, {}, {}, {}, {}});
  require_same(
      [](Side& side) {
        const int64_t count = 1500;
        const Arrays arrays(side, count, 0);
        const Tensor m = arrays.codes(0xff).view, v = arrays.codes(0xff).view;
        const Tensor m_scale = arrays.scales(1).view, v_scale = arrays.scales(2).view;
        side.ops().adamw({.parameter = side.fp32(Values(size_t(count)), {count}),
                          .gradient = side.fp32(ops_test::random_values(count, 3), {count}),
                          .m = m,
                          .v = v,
                          .gradient_scale = side.fp32({1}, {1}),
                          .m_scale = m_scale,
                          .v_scale = v_scale,
                          .beta1 = 1,
                          .beta2 = 1},
                         side.stream());
        return std::vector<Values>{side.download(m), side.download(v), side.download(m_scale),
                                   side.download(v_scale)};
      },
      {{}, {}, {}, {}});
}

TEST_CASE("cuda update: sgd") {
  Comparisons comparisons;
  for (const int64_t count : kCounts) {
    for (const int64_t offset : {0, 1}) {
      for (const double scale : {0.5, kNan}) {
        for (const Copy copy : {Copy::kNone, Copy::kFloat32, Copy::kBfloat16}) {
          const UpdateCase c{.count = count,
                             .offset = offset,
                             .copy = copy,
                             .gradient_scale = scale,
                             .zero_gradient = copy != Copy::kNone};
          comparisons.add(c.text(), [=](Side& side) { return run_sgd(side, c); },
                          {{.of_largest = kSinglePrecision},
                           {},
                           copy == Copy::kBfloat16 ? Tolerance{.relative = 2 * kBf16Rounding}
                                                   : Tolerance{.of_largest = kSinglePrecision}});
        }
      }
    }
  }
  comparisons.require_same();
}
