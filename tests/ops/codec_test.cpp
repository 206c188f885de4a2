// The codecs on tensors against those of the outer loop, bit by bit.
#include "outer/codec.h"

#include <cfloat>
#include <fmt/format.h>

#include "backend/quantization.h"
#include "base/math.h"
#include "ops/rig.h"

using namespace ops_test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;
using Bytes = std::vector<std::byte>;

// Scales and codes, as they are in a chunk.
struct Kind {
  const char* name;
  int64_t block;
  DType scale_type, code_type;
  int64_t codes_per_byte;

  int64_t scale_count(int64_t count) const { return base::div_ceil(count, block); }
  int64_t code_bytes(int64_t count) const { return base::div_ceil(count, codes_per_byte); }
};
const Kind kInt8{"int8", backend::kInt8Block, DType::kFloat32, DType::kInt8, 1};
const Kind kInt4{"int4", backend::kInt4Block, DType::kBfloat16, DType::kUint8, 2};

Bytes encode_by_outer(const Kind& kind, const Floats& values) {
  const auto codec = outer::make_codec(kind.name);
  Bytes bytes(size_t(codec->encoded_bytes(int64_t(values.size()))));
  REQUIRE(codec->encode(values, bytes).ok());
  return bytes;
}

struct Input {
  Tensor in, reference;
};

// Not what the operations would write.
Tensor filled(Rig& rig, DType dtype, int64_t count) {
  const Bytes bytes(size_t(count * backend::bytes_per_element(dtype)), std::byte{0xee});
  return rig.upload_raw(bytes.data(), dtype, {count});
}

// Requires the flag to be `flag` afterwards, which was 1.
Bytes encode(Rig& rig, const Kind& kind, const Input& input, int32_t flag = 1) {
  const int64_t count = input.in.element_count();
  const Tensor scales = filled(rig, kind.scale_type, kind.scale_count(count));
  const Tensor codes = filled(rig, kind.code_type, kind.code_bytes(count));
  const Tensor is_finite = rig.upload(std::vector<int32_t>{1}, {1});
  if (&kind == &kInt8) {
    rig.ops().encode_int8({scales, codes, is_finite, input.in, input.reference}, rig.stream());
  } else {
    rig.ops().encode_int4({scales, codes, is_finite, input.in, input.reference}, rig.stream());
  }
  int32_t found = -1;
  rig.download_raw(&found, is_finite);
  REQUIRE(found == flag);
  Bytes bytes(size_t(scales.byte_count() + codes.byte_count()));
  rig.download_raw(bytes.data(), scales);
  rig.download_raw(bytes.data() + scales.byte_count(), codes);
  return bytes;
}

Tensor upload(Rig& rig, const Floats& values) {
  return rig.upload_raw(values.data(), DType::kFloat32, {int64_t(values.size())});
}

Tensor upload_bfloat16(Rig& rig, const Floats& values) {
  std::vector<uint16_t> halves;
  for (const float value : values) halves.push_back(backend::to_bfloat16(value));
  return rig.upload_raw(halves.data(), DType::kBfloat16, {int64_t(values.size())});
}

// One kind of number after the other, in blocks of 512 and parts of them.
Floats all_kinds(int64_t count) {
  Floats values;
  std::mt19937_64 random(uint64_t(count) + 1);
  const float scales[] = {1.0f,  0.0f,       0x1p-100f, 0x1.fffffep-101f, FLT_MIN,
                          1e-3f, 0x1.cp-98f, 1e30f,     FLT_MAX / 2,      3.0f};
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = 2 * double(random() >> 11) * 0x1p-53 - 1;
    values.push_back(float(uniform) * scales[i / 512 % 10]);
    if (i % 1024 == 700) values.back() = i % 2048 == 700 ? FLT_MAX : -FLT_MAX;
    if (i % 5120 == 1024) values.back() = 0x1p-100f;
  }
  return values;
}

const int64_t kCounts[] = {1, 3, 127, 128, 129, 511, 512, 513, 1025, 10'243, 40'001};

}  // namespace

TEST_CASE("encode_int8 and encode_int4 have the bits of the outer loop's codecs") {
  const Kind& kind = GENERATE(false, true) ? kInt8 : kInt4;
  for (const int64_t count : kCounts) {
    INFO("count " << count);
    const Floats values = all_kinds(count);
    Floats negative = values, reference = all_kinds(count), difference, narrow, narrow_difference;
    std::reverse(reference.begin(), reference.end());
    for (float& value : reference) value /= 8;  // So that no difference overflows.
    for (size_t i = 0; i < values.size(); ++i) {
      negative[i] = -values[i];
      difference.push_back(reference[i] - values[i] / 2);
      narrow.push_back(backend::from_bfloat16(backend::to_bfloat16(values[i] / 2)));
      narrow_difference.push_back(reference[i] - narrow[i]);
    }
    Floats half = values, negative_narrow = narrow;
    for (float& value : half) value /= 2;
    for (float& value : negative_narrow) value = -value;
    for (const int threads : {1, 3}) {
      Rig rig(threads);
      const Tensor r = upload(rig, reference);
      REQUIRE(encode(rig, kind, {upload(rig, negative), {}}) == encode_by_outer(kind, values));
      REQUIRE(encode(rig, kind, {upload(rig, half), r}) == encode_by_outer(kind, difference));
      REQUIRE(encode(rig, kind, {upload_bfloat16(rig, narrow), r}) ==
              encode_by_outer(kind, narrow_difference));
      REQUIRE(encode(rig, kind, {upload_bfloat16(rig, narrow), {}}) ==
              encode_by_outer(kind, negative_narrow));
    }
  }
}

TEST_CASE("encode_int8 and encode_int4 see what is not finite, wherever it stands") {
  const Kind& kind = GENERATE(false, true) ? kInt8 : kInt4;
  Rig rig(2);
  for (const int64_t count : {1, 600, 40'001}) {
    const Floats ones(static_cast<size_t>(count), 1.0f);
    for (const size_t place : {size_t{0}, size_t(count) / 2, size_t(count) - 1}) {
      for (const float bad : {kInfinity, -kInfinity, kNan, -kNan}) {
        INFO(fmt::format("count {} place {} value {}", count, place, bad));
        Floats values = ones;
        values[place] = bad;
        encode(rig, kind, {upload(rig, values), {}}, 0);
        encode(rig, kind, {upload_bfloat16(rig, values), {}}, 0);
        encode(rig, kind, {upload(rig, values), upload(rig, ones)}, 0);
        encode(rig, kind, {upload(rig, ones), upload(rig, values)}, 0);
      }
    }
  }
  // Both finite, but not their difference.
  encode(rig, kind, {upload(rig, {1, -FLT_MAX}), upload(rig, {1, FLT_MAX})}, 0);
}

TEST_CASE("encode_int8 and encode_int4 leave a flag that they have no reason to clear") {
  Rig rig(1);
  const Tensor is_finite = rig.upload(std::vector<int32_t>{0}, {1}), in = upload(rig, {1});
  rig.ops().encode_int8(
      {filled(rig, DType::kFloat32, 1), filled(rig, DType::kInt8, 1), is_finite, in, {}},
      rig.stream());
  rig.ops().encode_int4(
      {filled(rig, DType::kBfloat16, 1), filled(rig, DType::kUint8, 1), is_finite, in, {}},
      rig.stream());
  int32_t found = -1;
  rig.download_raw(&found, is_finite);
  REQUIRE(found == 0);
}

TEST_CASE("decode_int8 and decode_int4 have the bits of the outer loop's codecs") {
  const Kind& kind = GENERATE(false, true) ? kInt8 : kInt4;
  for (const int64_t count : kCounts) {
    const Bytes bytes = encode_by_outer(kind, all_kinds(count));
    Floats expected(static_cast<size_t>(count)), found(static_cast<size_t>(count));
    outer::make_codec(kind.name)->decode(bytes, expected);
    Rig rig(2);
    const Tensor out = rig.poisoned({count});
    const Tensor scales = rig.upload_raw(bytes.data(), kind.scale_type, {kind.scale_count(count)});
    const Tensor codes = rig.upload_raw(bytes.data() + scales.byte_count(), kind.code_type,
                                        {kind.code_bytes(count)});
    if (&kind == &kInt8) {
      rig.ops().decode_int8({out, scales, codes}, rig.stream());
    } else {
      rig.ops().decode_int4({out, scales, codes}, rig.stream());
    }
    rig.download_raw(found.data(), out);
    REQUIRE(std::memcmp(found.data(), expected.data(), size_t(4 * count)) == 0);
  }
}

TEST_CASE("codec benchmark", "[.benchmark]") {
  Rig rig(0);
  const int64_t count = 16'777'216;
  const Floats values(static_cast<size_t>(count), 0.5f);
  const Tensor in = upload(rig, values), reference = upload(rig, values);
  const Tensor is_finite = rig.upload(std::vector<int32_t>{1}, {1});
  const std::string shape = fmt::format("{}", count);
  for (const Kind& kind : {kInt8, kInt4}) {
    const bool is_int8 = kind.codes_per_byte == 1;
    const Tensor scales = filled(rig, kind.scale_type, kind.scale_count(count));
    const Tensor codes = filled(rig, kind.code_type, kind.code_bytes(count));
    const double code_bytes = double(codes.byte_count()), value_bytes = 4.0 * double(count);
    run_benchmark(
        rig,
        {.name = fmt::format("encode_{}", kind.name),
         .shape = shape,
         .bytes = 2 * value_bytes + code_bytes},
        [&] {
          if (is_int8) {
            rig.ops().encode_int8({scales, codes, is_finite, in, reference}, rig.stream());
          } else {
            rig.ops().encode_int4({scales, codes, is_finite, in, reference}, rig.stream());
          }
        });
    run_benchmark(rig,
                  {.name = fmt::format("decode_{}", kind.name),
                   .shape = shape,
                   .bytes = value_bytes + code_bytes},
                  [&] {
                    if (is_int8) {
                      rig.ops().decode_int8({in, scales, codes}, rig.stream());
                    } else {
                      rig.ops().decode_int4({in, scales, codes}, rig.stream());
                    }
                  });
  }
}
