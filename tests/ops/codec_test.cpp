// The int8 codec on tensors against the one of the outer loop, bit by bit.
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

struct Encoded {
  Floats scales;
  std::vector<int8_t> codes;
  bool operator==(const Encoded&) const = default;
};

Encoded encode_by_outer(const Floats& values) {
  const auto codec = outer::make_codec("int8");
  const auto count = int64_t(values.size());
  std::vector<std::byte> bytes(size_t(codec->encoded_bytes(count)));
  REQUIRE(codec->encode(values, bytes).ok());
  Encoded encoded;
  encoded.scales.resize(size_t(base::div_ceil(count, backend::kInt8Block)));
  encoded.codes.resize(values.size());
  std::memcpy(encoded.scales.data(), bytes.data(), 4 * encoded.scales.size());
  std::memcpy(encoded.codes.data(), bytes.data() + 4 * encoded.scales.size(), values.size());
  return encoded;
}

struct Input {
  Tensor in, reference;
};

// Requires the flag to be `flag` afterwards, which was 1.
Encoded encode(Rig& rig, const Input& input, int32_t flag = 1) {
  const int64_t count = input.in.element_count();
  const int64_t block_count = base::div_ceil(count, backend::kInt8Block);
  Encoded encoded{Floats(size_t(block_count)), std::vector<int8_t>(size_t(count))};
  const Tensor scales = rig.poisoned({block_count});
  const Tensor codes = rig.upload_raw(encoded.codes.data(), DType::kInt8, {count});
  const Tensor is_finite = rig.upload(std::vector<int32_t>{1}, {1});
  rig.ops().encode_int8({.scales = scales,
                         .codes = codes,
                         .is_finite = is_finite,
                         .in = input.in,
                         .reference = input.reference},
                        rig.stream());
  int32_t found = -1;
  rig.download_raw(&found, is_finite);
  REQUIRE(found == flag);
  rig.download_raw(encoded.scales.data(), scales);
  rig.download_raw(encoded.codes.data(), codes);
  return encoded;
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
  const float scales[] = {1.0f,  0.0f,      0x1p-100f, 0x1.fffffep-101f, FLT_MIN,
                          1e-3f, 0x1p-140f, 1e30f,     FLT_MAX / 2,      3.0f};
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = 2 * double(random() >> 11) * 0x1p-53 - 1;
    values.push_back(float(uniform) * scales[i / 512 % 10]);
    if (i % 1024 == 700) values.back() = i % 2048 == 700 ? FLT_MAX : -FLT_MAX;
    if (i % 5120 == 1024) values.back() = 0x1p-100f;
  }
  return values;
}

const int64_t kCounts[] = {1, 3, 511, 512, 513, 1025, 10'243, 40'001};

}  // namespace

TEST_CASE("encode_int8 has the bits of the outer loop's codec") {
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
      REQUIRE(encode(rig, {upload(rig, negative), {}}) == encode_by_outer(values));
      REQUIRE(encode(rig, {upload(rig, half), r}) == encode_by_outer(difference));
      REQUIRE(encode(rig, {upload_bfloat16(rig, narrow), r}) == encode_by_outer(narrow_difference));
      REQUIRE(encode(rig, {upload_bfloat16(rig, narrow), {}}) == encode_by_outer(negative_narrow));
    }
  }
}

TEST_CASE("encode_int8 sees what is not finite, wherever it stands") {
  Rig rig(2);
  for (const int64_t count : {1, 600, 40'001}) {
    const Floats ones(static_cast<size_t>(count), 1.0f);
    for (const size_t place : {size_t{0}, size_t(count) / 2, size_t(count) - 1}) {
      for (const float bad : {kInfinity, -kInfinity, kNan, -kNan}) {
        INFO(fmt::format("count {} place {} value {}", count, place, bad));
        Floats values = ones;
        values[place] = bad;
        encode(rig, {upload(rig, values), {}}, 0);
        encode(rig, {upload_bfloat16(rig, values), {}}, 0);
        encode(rig, {upload(rig, values), upload(rig, ones)}, 0);
        encode(rig, {upload(rig, ones), upload(rig, values)}, 0);
      }
    }
  }
  // Both finite, but not their difference.
  encode(rig, {upload(rig, {1, -FLT_MAX}), upload(rig, {1, FLT_MAX})}, 0);
}

TEST_CASE("encode_int8 leaves a flag that it has no reason to clear") {
  Rig rig(1);
  const Tensor is_finite = rig.upload(std::vector<int32_t>{0}, {1});
  const Tensor codes = rig.upload_raw("", DType::kInt8, {1});
  rig.ops().encode_int8(
      {.scales = rig.poisoned({1}), .codes = codes, .is_finite = is_finite, .in = upload(rig, {1})},
      rig.stream());
  int32_t found = -1;
  rig.download_raw(&found, is_finite);
  REQUIRE(found == 0);
}

TEST_CASE("decode_int8 has the bits of the outer loop's codec") {
  const auto codec = outer::make_codec("int8");
  for (const int64_t count : kCounts) {
    const Encoded encoded = encode_by_outer(all_kinds(count));
    std::vector<std::byte> bytes(4 * encoded.scales.size() + encoded.codes.size());
    std::memcpy(bytes.data(), encoded.scales.data(), 4 * encoded.scales.size());
    std::memcpy(bytes.data() + 4 * encoded.scales.size(), encoded.codes.data(),
                encoded.codes.size());
    Floats expected(static_cast<size_t>(count)), found(static_cast<size_t>(count));
    codec->decode(bytes, expected);
    Rig rig(2);
    const Tensor out = rig.poisoned({count});
    rig.ops().decode_int8({.out = out,
                           .scales = upload(rig, encoded.scales),
                           .codes = rig.upload_raw(encoded.codes.data(), DType::kInt8, {count})},
                          rig.stream());
    rig.download_raw(found.data(), out);
    REQUIRE(std::memcmp(found.data(), expected.data(), size_t(4 * count)) == 0);
  }
}

TEST_CASE("codec benchmark", "[.benchmark]") {
  Rig rig(0);
  const int64_t count = 16'777'216, block_count = count / backend::kInt8Block;
  const Floats values(static_cast<size_t>(count), 0.5f);
  const Tensor in = upload(rig, values), reference = upload(rig, values);
  const Tensor scales = rig.upload(Values(size_t(block_count)), {block_count});
  const Tensor codes =
      rig.upload_raw(std::vector<int8_t>(size_t(count)).data(), DType::kInt8, {count});
  const Tensor is_finite = rig.upload(std::vector<int32_t>{1}, {1});
  const std::string shape = fmt::format("{}", count);
  run_benchmark(rig, {.name = "encode_int8", .shape = shape, .bytes = 9.0 * double(count)}, [&] {
    rig.ops().encode_int8({.scales = scales,
                           .codes = codes,
                           .is_finite = is_finite,
                           .in = in,
                           .reference = reference},
                          rig.stream());
  });
  run_benchmark(rig, {.name = "decode_int8", .shape = shape, .bytes = 5.0 * double(count)}, [&] {
    rig.ops().decode_int8({.out = in, .scales = scales, .codes = codes}, rig.stream());
  });
}
