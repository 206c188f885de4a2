// The int8 and int4 codecs of the outer loop on tensors. outer/codec_int8.h and codec_int4.h do the
// same to bytes that travel; both take their arithmetic from backend/quantization.h. Compiled
// without contraction, so that the bits are those of every other machine.
#include <algorithm>
#include <atomic>

#include "backend/quantization.h"
#include "cpu/bfloat16.h"
#include "cpu/cpu_backend.h"

namespace cpu {

using backend::DecodeInt4Args;
using backend::DecodeInt8Args;
using backend::DType;
using backend::EncodeInt4Args;
using backend::EncodeInt8Args;
using backend::kInt4Block;
using backend::kInt8Block;
using backend::Stream;
using backend::Tensor;

namespace {

constexpr int64_t kPieceBlocks = 32;
constexpr int64_t kInt4PieceBlocks = kPieceBlocks * kInt8Block / kInt4Block;

// out = reference - in, or -in where there is no reference, from element `first` on.
void subtract(const Tensor& in, const Tensor& reference, int64_t first, int64_t count, float* out) {
  const float* from = out;
  if (in.dtype == DType::kBfloat16) {
    to_float(static_cast<const Bfloat16*>(in.data) + first, out, count);
  } else {
    from = in.as<float>() + first;
  }
  if (reference) {
    const float* exact = reference.as<float>() + first;
    for (int64_t i = 0; i < count; ++i) out[i] = exact[i] - from[i];
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = -from[i];
  }
}

// False if a value is not finite.
bool encode_block(const EncodeInt8Args& args, int64_t block) {
  const int64_t first = block * kInt8Block;
  const int64_t count = std::min(kInt8Block, args.in.element_count() - first);
  float values[kInt8Block];
  subtract(args.in, args.reference, first, count, values);
  const int32_t maximum = backend::absolute_maximum_bits(values, count);
  if (maximum >= backend::kInfinityBits) return false;
  const backend::Int8Scale scale = backend::int8_scale(std::bit_cast<float>(maximum));
  args.scales.as<float>()[block] = scale.scale;
  int8_t* codes = args.codes.as<int8_t>() + first;
  for (int64_t i = 0; i < count; ++i) codes[i] = backend::int8_code(values[i], scale.inverse);
  return true;
}

void decode_block(const DecodeInt8Args& args, int64_t block) {
  const int64_t first = block * kInt8Block;
  const int64_t count = std::min(kInt8Block, args.out.element_count() - first);
  const float scale = args.scales.as<float>()[block];
  const int8_t* codes = args.codes.as<int8_t>() + first;
  float* out = args.out.as<float>() + first;
  for (int64_t i = 0; i < count; ++i) out[i] = float(codes[i]) * scale;
}

// False if a value is not finite.
bool encode_block(const EncodeInt4Args& args, int64_t block) {
  const int64_t first = block * kInt4Block;
  const int64_t count = std::min(kInt4Block, args.in.element_count() - first);
  float values[kInt4Block];
  subtract(args.in, args.reference, first, count, values);
  const int32_t maximum = backend::absolute_maximum_bits(values, count);
  if (maximum >= backend::kInfinityBits) return false;
  const backend::Int4Scale scale = backend::int4_scale(std::bit_cast<float>(maximum));
  static_cast<Bfloat16*>(args.scales.data)[block] = {scale.bits};
  int8_t codes[kInt4Block];
  for (int64_t i = 0; i < count; ++i) codes[i] = backend::int4_code(values[i], scale.inverse);
  if (count % 2 != 0) codes[count] = 0;
  uint8_t* pairs = args.codes.as<uint8_t>() + first / 2;
  for (int64_t i = 0; i < base::div_ceil(count, 2); ++i)
    pairs[i] = backend::int4_pair(codes[2 * i], codes[2 * i + 1]);
  return true;
}

void decode_block(const DecodeInt4Args& args, int64_t block) {
  const int64_t first = block * kInt4Block;
  const int64_t count = std::min(kInt4Block, args.out.element_count() - first);
  const float scale = to_float(static_cast<const Bfloat16*>(args.scales.data)[block]);
  const uint8_t* pairs = args.codes.as<uint8_t>() + first / 2;
  float* out = args.out.as<float>() + first;
  int8_t codes[kInt4Block];
  for (int64_t i = 0; i < base::div_ceil(count, 2); ++i) {
    codes[2 * i] = backend::int4_first(pairs[i]);
    codes[2 * i + 1] = backend::int4_second(pairs[i]);
  }
  for (int64_t i = 0; i < count; ++i) out[i] = float(codes[i]) * scale;
}

template <class Args>
void check_int4(const Args& args, int64_t count) {
  CHECK(args.scales.dtype == DType::kBfloat16);
  CHECK(args.scales.element_count() == base::div_ceil(count, kInt4Block));
  CHECK(args.codes.element_count() == base::div_ceil(count, 2));
}

}  // namespace

void CpuOps::encode_int8(const EncodeInt8Args& args, Stream&) {
  const int64_t count = args.in.element_count();
  const int64_t block_count = base::div_ceil(count, kInt8Block);
  CHECK(args.in.dtype == DType::kFloat32 || args.in.dtype == DType::kBfloat16);
  CHECK(!args.reference || args.reference.element_count() == count);
  CHECK(args.codes.element_count() == count && args.scales.element_count() == block_count);
  int32_t& is_finite = args.is_finite.as<int32_t>()[0];
  workers_.for_pieces(block_count, kPieceBlocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      if (encode_block(args, block)) continue;
      std::atomic_ref(is_finite).store(0, std::memory_order_relaxed);
    }
  });
}

void CpuOps::decode_int8(const DecodeInt8Args& args, Stream&) {
  const int64_t count = args.out.element_count();
  const int64_t block_count = base::div_ceil(count, kInt8Block);
  CHECK(args.codes.element_count() == count && args.scales.element_count() == block_count);
  workers_.for_pieces(block_count, kPieceBlocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) decode_block(args, block);
  });
}

void CpuOps::encode_int4(const EncodeInt4Args& args, Stream&) {
  const int64_t count = args.in.element_count();
  CHECK(args.in.dtype == DType::kFloat32 || args.in.dtype == DType::kBfloat16);
  CHECK(!args.reference || args.reference.element_count() == count);
  check_int4(args, count);
  int32_t& is_finite = args.is_finite.as<int32_t>()[0];
  const int64_t block_count = args.scales.element_count();
  workers_.for_pieces(block_count, kInt4PieceBlocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      if (encode_block(args, block)) continue;
      std::atomic_ref(is_finite).store(0, std::memory_order_relaxed);
    }
  });
}

void CpuOps::decode_int4(const DecodeInt4Args& args, Stream&) {
  check_int4(args, args.out.element_count());
  const int64_t block_count = args.scales.element_count();
  workers_.for_pieces(block_count, kInt4PieceBlocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) decode_block(args, block);
  });
}

}  // namespace cpu
