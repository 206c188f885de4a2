// The int8 codec: the same bits as the CPU's, which are those of the outer loop's.
#include <cfloat>
#include <fmt/format.h>

#include "backend/quantization.h"
#include "base/math.h"
#include "cuda/comparisons.h"

using namespace cuda_test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// One kind of number after the other, in blocks of 512 and parts of them.
Values all_kinds(int64_t count, uint64_t seed) {
  Values values = ops_test::random_values(count, seed);
  const double scales[] = {1,    0,        0x1p-100, 0x1p-103,     FLT_MIN,
                           1e-3, 0x1p-140, 1e30,     FLT_MAX / 20, 3};
  for (int64_t i = 0; i < count; ++i) {
    double& value = values[size_t(i)];
    value = double(float(value * scales[i / 512 % 10]));
    if (i % 5120 == 700) value = FLT_MAX / 2;
    if (i % 5120 == 1300) value = -FLT_MAX / 2;
    if (i % 5120 == 1537) value = 0x1.fffffep-101;
  }
  return values;
}

struct Case {
  int64_t count;
  DType in;
  bool has_reference;
  int64_t offset;  // Of all arrays, in elements: 1 is aligned to nothing.
};

Tensor in_of(Side& side, const Case& c, const Values& values) {
  Values padded(size_t(c.offset), 7.0);
  padded.insert(padded.end(), values.begin(), values.end());
  const Shape whole{c.offset + c.count};
  if (c.in == DType::kFloat32) return side.fp32(padded, whole).slice(c.offset, {c.count});
  std::vector<uint8_t> bytes;
  for (const double value : padded) {
    const uint16_t bits = backend::to_bfloat16(float(value));
    bytes.push_back(uint8_t(bits & 0xff));
    bytes.push_back(uint8_t(bits >> 8));
  }
  return side.bytes(bytes, DType::kBfloat16, whole).slice(c.offset, {c.count});
}

// Scales and codes with what stands around them, and the flag.
std::vector<Values> encode(Side& side, const Case& c, const Values& in, const Values& reference) {
  const int64_t block_count = base::div_ceil(c.count, backend::kInt8Block);
  const Tensor scales = side.fp32(Values(size_t(block_count + 2), 5.0), {block_count + 2});
  const Tensor codes = side.bytes(std::vector<uint8_t>(size_t(c.count + c.offset + 4), 99),
                                  DType::kInt8, {c.count + c.offset + 4});
  const Tensor is_finite = side.int32({1}, {1});
  Case reference_case = c;
  reference_case.in = DType::kFloat32;
  side.ops().encode_int8(
      {.scales = scales.slice(1, {block_count}),
       .codes = codes.slice(c.offset, {c.count}),
       .is_finite = is_finite,
       .in = in_of(side, c, in),
       .reference = c.has_reference ? in_of(side, reference_case, reference) : Tensor{}},
      side.stream());
  return {side.download(scales), side.download(codes), side.download(is_finite)};
}

}  // namespace

TEST_CASE("cuda codec: encode_int8 has the CPU's bits") {
  Comparisons comparisons;
  for (const int64_t count : {1, 3, 4, 511, 512, 513, 2051, 10'244}) {
    const Values values = all_kinds(count, 1), reference = all_kinds(count, 2);
    for (const DType in : {DType::kFloat32, DType::kBfloat16}) {
      for (const bool has_reference : {false, true}) {
        for (const int64_t offset : {0, 1, 4}) {
          const Case c{count, in, has_reference, offset};
          comparisons.add(fmt::format("count {} dtype {} reference {} offset {}", count, int(in),
                                      has_reference, offset),
                          [=](Side& side) { return encode(side, c, values, reference); },
                          {{}, {}, {}});
        }
      }
    }
  }
  comparisons.require_same();
}

TEST_CASE("cuda codec: encode_int8 sees what is not finite, wherever it stands") {
  const int64_t count = 5000;
  const Values ones(size_t(count), 1.0);
  for_each_order([&](const char*) {
    Side side(make_device_under_test());
    for (const DType in : {DType::kFloat32, DType::kBfloat16}) {
      const auto flag = [&](const Values& values, const Values& reference) {
        return encode(side, {count, in, true, 0}, values, reference)[2][0];
      };
      REQUIRE(flag(ones, ones) == 1);
      for (const size_t place : {size_t(0), size_t(1), size_t(2047), size_t(4999)}) {
        for (const double bad : {kInfinity, -kInfinity, kNan}) {
          Values values = ones;
          values[place] = bad;
          REQUIRE(flag(values, ones) == 0);
          REQUIRE(flag(ones, values) == 0);
        }
      }
      // Both finite, but not their difference.
      Values low = ones, high = ones;
      low[77] = -0x1p127;
      high[77] = 0x1p127;
      REQUIRE(flag(low, high) == 0);
    }
  });
}

TEST_CASE("cuda codec: decode_int8 has the CPU's bits") {
  Comparisons comparisons;
  for (const int64_t count : {1, 511, 512, 10'243}) {
    for (const int64_t offset : {0, 1}) {
      const int64_t block_count = base::div_ceil(count, backend::kInt8Block);
      Values scales = ops_test::random_values(block_count, 3);
      for (double& scale : scales) scale = std::abs(scale);
      scales[0] = double(backend::kInt8ScaleMax);
      std::vector<uint8_t> codes;
      for (int64_t i = 0; i < count + offset; ++i) {
        const int code = int(i * 37 % 255) - 127;
        codes.push_back(uint8_t(code));
      }
      comparisons.add(
          fmt::format("count {} offset {}", count, offset),
          [=](Side& side) {
            const int64_t whole = count + offset + 4;
            const Tensor out = side.fp32(Values(size_t(whole), 5.0), {whole});
            side.ops().decode_int8(
                {.out = out.slice(offset, {count}),
                 .scales = side.fp32(scales, {block_count}),
                 .codes = side.bytes(codes, DType::kInt8, {count + offset}).slice(offset, {count})},
                side.stream());
            return std::vector<Values>{side.download(out)};
          },
          {{}});
    }
  }
  comparisons.require_same();
}
