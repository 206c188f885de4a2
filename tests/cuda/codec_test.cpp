// The int8 and int4 codecs: the same bits as the CPU's, which are those of the outer loop's.
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
  const double scales[] = {1, 0, 0x1p-100, 0x1p-99, FLT_MIN, 1e-3, 0x1p-140, 1e30, FLT_MAX / 20, 3};
  for (int64_t i = 0; i < count; ++i) {
    double& value = values[size_t(i)];
    value = double(float(value * scales[i / 512 % 10]));
    if (i % 5120 == 700) value = FLT_MAX / 2;
    if (i % 5120 == 1300) value = -FLT_MAX / 2;
    if (i % 5120 == 1537) value = 0x1.fffffep-101;
  }
  return values;
}

struct Kind {
  const char* name;
  int64_t block;
  DType scale_type, code_type;
  int64_t codes_per_byte;

  int64_t scale_count(int64_t count) const { return base::div_ceil(count, block); }
  int64_t code_bytes(int64_t count) const { return base::div_ceil(count, codes_per_byte); }
  bool is_int8() const { return codes_per_byte == 1; }
};
const Kind kKinds[] = {{"int8", backend::kInt8Block, DType::kFloat32, DType::kInt8, 1},
                       {"int4", backend::kInt4Block, DType::kBfloat16, DType::kUint8, 2}};

// Room for so many elements, full of something else than the operations would write.
Tensor filled(Side& side, DType dtype, int64_t count) {
  const std::vector<uint8_t> bytes(size_t(count * backend::bytes_per_element(dtype)), 99);
  return side.bytes(bytes, dtype, {count});
}

struct Case {
  int64_t count;
  DType in;
  bool has_reference;
  int64_t offset;  // Of all arrays, in elements: 1 is aligned to nothing.
};

Tensor bfloat16(Side& side, const Values& values, const Shape& shape) {
  std::vector<uint8_t> bytes;
  for (const double value : values) {
    const uint16_t bits = backend::to_bfloat16(float(value));
    bytes.push_back(uint8_t(bits & 0xff));
    bytes.push_back(uint8_t(bits >> 8));
  }
  return side.bytes(bytes, DType::kBfloat16, shape);
}

Tensor in_of(Side& side, const Case& c, const Values& values) {
  Values padded(size_t(c.offset), 7.0);
  padded.insert(padded.end(), values.begin(), values.end());
  const Shape whole{c.offset + c.count};
  const Tensor all =
      c.in == DType::kFloat32 ? side.fp32(padded, whole) : bfloat16(side, padded, whole);
  return all.slice(c.offset, {c.count});
}

// Scales and codes with what stands around them, and the flag.
std::vector<Values> encode(Side& side, const Kind& kind, const Case& c, const Values& in,
                           const Values& reference) {
  const int64_t scale_count = kind.scale_count(c.count), code_bytes = kind.code_bytes(c.count);
  const Tensor scales = filled(side, kind.scale_type, scale_count + 2);
  const Tensor codes = filled(side, kind.code_type, code_bytes + c.offset + 4);
  const Tensor is_finite = side.int32({1}, {1});
  Case reference_case = c;
  reference_case.in = DType::kFloat32;
  const Tensor inner_scales = scales.slice(1, {scale_count});
  const Tensor inner_codes = codes.slice(c.offset, {code_bytes});
  const Tensor x = in_of(side, c, in);
  const Tensor from = c.has_reference ? in_of(side, reference_case, reference) : Tensor{};
  if (kind.is_int8()) {
    side.ops().encode_int8({inner_scales, inner_codes, is_finite, x, from}, side.stream());
  } else {
    side.ops().encode_int4({inner_scales, inner_codes, is_finite, x, from}, side.stream());
  }
  return {side.download(scales), side.download(codes), side.download(is_finite)};
}

}  // namespace

TEST_CASE("cuda codec: encode_int8 and encode_int4 have the CPU's bits") {
  const Kind& kind = kKinds[GENERATE(0, 1)];
  Comparisons comparisons;
  for (const int64_t count : {1, 3, 4, 127, 129, 511, 512, 513, 2051, 10'244}) {
    const Values values = all_kinds(count, 1), reference = all_kinds(count, 2);
    for (const DType in : {DType::kFloat32, DType::kBfloat16}) {
      for (const bool has_reference : {false, true}) {
        for (const int64_t offset : {0, 1, 4}) {
          const Case c{count, in, has_reference, offset};
          comparisons.add(
              fmt::format("{} count {} dtype {} reference {} offset {}", kind.name, count, int(in),
                          has_reference, offset),
              [=, &kind](Side& side) { return encode(side, kind, c, values, reference); },
              {{}, {}, {}});
        }
      }
    }
  }
  comparisons.require_same();
}

TEST_CASE("cuda codec: encode_int8 and encode_int4 see what is not finite, wherever it stands") {
  const Kind& kind = kKinds[GENERATE(0, 1)];
  const int64_t count = 5000;
  const Values ones(size_t(count), 1.0);
  for_each_order([&](const char*) {
    Side side(make_device_under_test());
    for (const DType in : {DType::kFloat32, DType::kBfloat16}) {
      const auto flag = [&](const Values& values, const Values& reference) {
        return encode(side, kind, {count, in, true, 0}, values, reference)[2][0];
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

TEST_CASE("cuda codec: decode_int8 and decode_int4 have the CPU's bits") {
  const Kind& kind = kKinds[GENERATE(0, 1)];
  Comparisons comparisons;
  for (const int64_t count : {1, 3, 127, 128, 511, 512, 513, 10'243}) {
    for (const int64_t offset : {0, 1}) {
      const int64_t code_bytes = kind.code_bytes(count);
      Values scales = ops_test::random_values(kind.scale_count(count), 3);
      for (double& scale : scales) scale = std::abs(scale);
      scales[0] = double(kind.is_int8() ? backend::kInt8ScaleMax : backend::kInt4ScaleMax);
      std::vector<uint8_t> codes;
      for (int64_t i = 0; i < code_bytes + offset; ++i) {
        const int a = int(i * 37 % 255) - 127, b = int(i * 7 % 15) - 7, c = int(i * 4 % 15) - 7;
        codes.push_back(kind.is_int8() ? uint8_t(a) : backend::int4_pair(int8_t(b), int8_t(c)));
      }
      comparisons.add(
          fmt::format("{} count {} offset {}", kind.name, count, offset),
          [=, &kind](Side& side) {
            const int64_t whole = count + offset + 4;
            const Tensor out = side.fp32(Values(size_t(whole), 5.0), {whole});
            const Tensor inner = out.slice(offset, {count});
            const Tensor inner_codes = side.bytes(codes, kind.code_type, {code_bytes + offset})
                                           .slice(offset, {code_bytes});
            if (kind.is_int8()) {
              side.ops().decode_int8(
                  {inner, side.fp32(scales, {kind.scale_count(count)}), inner_codes},
                  side.stream());
            } else {
              side.ops().decode_int4(
                  {inner, bfloat16(side, scales, {kind.scale_count(count)}), inner_codes},
                  side.stream());
            }
            return std::vector<Values>{side.download(out)};
          },
          {{}});
    }
  }
  comparisons.require_same();
}
