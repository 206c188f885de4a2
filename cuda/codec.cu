// The int8 and int4 codecs of the outer loop. Compiled without contraction, and with divisions that
// round as IEEE says (nvcc's default): its bits are those of every other machine.
#include "backend/quantization.h"
#include "base/math.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace cuda {

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

constexpr int kThreads = 256;
constexpr int kQuads = int(kInt8Block) / (4 * kWarp);  // Of a thread.

// Kernels give a warp 512 numbers, a quad of a lane after the other: one block of int8, or four of
// int4, one for each `i`.
static_assert(kInt4Block == 4 * kWarp);

__device__ int64_t warp_index() {
  return int64_t(blockIdx.x) * (kThreads / kWarp) + int64_t(threadIdx.x) / kWarp;
}
__device__ QuadPlace place_of(int64_t warp, int i, int64_t count, bool is_aligned) {
  const int lane = int(threadIdx.x) % kWarp;
  return quad_place(warp * kInt8Block + 4 * (i * kWarp + lane), count, is_aligned);
}
Grid grid_of(int64_t count) {
  const int64_t warps = base::div_ceil(count, kInt8Block);
  return {.blocks = unsigned(base::div_ceil(warps, kThreads / kWarp)), .threads = kThreads};
}

// x = reference - in.
template <class In>
struct Difference {
  const In* in;
  const float* reference;  // nullptr: zeros.
  int64_t count;
  bool is_aligned;  // Also the codes.

  __device__ QuadPlace place(int64_t warp, int i) const {
    return place_of(warp, i, count, is_aligned);
  }
  __device__ Quad load_quad(const QuadPlace& place) const {
    const Quad value = load(in, place);
    const Quad from = reference ? load(reference, place) : Quad{};
    Quad x;
    for (int k = 0; k < 4; ++k) x.at[k] = from.at[k] - value.at[k];
    return x;
  }
};

__device__ unsigned encode_quad(const Quad& x, float inverse) {
  unsigned codes = 0;
  for (int k = 0; k < 4; ++k)
    codes |= unsigned(uint8_t(backend::int8_code(x.at[k], inverse))) << 8 * k;
  return codes;
}

template <class In>
struct EncodeInt8 {
  float* scales;
  int8_t* codes;
  int32_t* is_finite;
  Difference<In> difference;
};

// scale = max |x| / 127;  code = round(x * (127 / max |x|)).
// A warp per block of 512 holds its numbers in registers from the first pass (the maximum) to the
// second (the codes). All lanes make the same two divisions. Whoever sees what is not finite clears
// the flag: many may, all write the same. Moves 9 bytes per element, 5 without reference, 2 less
// where `in` is bf16.
template <class In>
__global__ void __launch_bounds__(kThreads) encode_int8_kernel(EncodeInt8<In> e) {
  const int64_t block = warp_index();
  if (block * kInt8Block >= e.difference.count) return;
  Quad x[kQuads];
  int maximum = 0;
  for (int i = 0; i < kQuads; ++i) {
    x[i] = e.difference.load_quad(e.difference.place(block, i));
    maximum = absolute_maximum_bits(x[i], maximum);
  }
  maximum = warp_max(maximum);
  const bool is_first_lane = threadIdx.x % kWarp == 0;
  if (maximum >= backend::kInfinityBits) {
    if (is_first_lane) *e.is_finite = 0;
    return;
  }
  const backend::Int8Scale scale = backend::int8_scale(__int_as_float(maximum));
  if (is_first_lane) e.scales[block] = scale.scale;
  for (int i = 0; i < kQuads; ++i)
    store_codes(e.codes, e.difference.place(block, i), encode_quad(x[i], scale.inverse));
}

// out = code * scale.  A warp per block of 512. Moves 5 bytes per element.
__global__ void __launch_bounds__(kThreads)
    decode_int8_kernel(float* out, const float* scales, const int8_t* codes, int64_t count,
                       bool is_aligned) {
  const int64_t block = warp_index();
  if (block * kInt8Block >= count) return;
  const float scale = scales[block];
  for (int i = 0; i < kQuads; ++i) {
    const QuadPlace place = place_of(block, i, count, is_aligned);
    const unsigned quad = load_codes(codes, place);
    Quad values;
    for (int k = 0; k < 4; ++k) values.at[k] = float(int8_t(quad >> 8 * k & 0xff)) * scale;
    store(out, place, values);
  }
}

// Four codes of four bits in two bytes, the first in the lowest bits. Elements behind the end are
// 0.
__device__ unsigned short int4_quad(const Quad& x, float inverse) {
  int8_t codes[4];
  for (int k = 0; k < 4; ++k) codes[k] = backend::int4_code(x.at[k], inverse);
  return static_cast<unsigned short>(backend::int4_pair(codes[0], codes[1]) |
                                     backend::int4_pair(codes[2], codes[3]) << 8);
}
__device__ unsigned short load_pairs(const uint8_t* array, const QuadPlace& place) {
  const uint8_t* pairs = array + place.first / 2;
  if (place.is_packed) return *reinterpret_cast<const unsigned short*>(pairs);
  unsigned quad = 0;
  for (int i = 0; i < 2; ++i) {
    if (2 * i < place.count) quad |= unsigned(pairs[i]) << 8 * i;
  }
  return static_cast<unsigned short>(quad);
}
__device__ void store_pairs(uint8_t* array, const QuadPlace& place, unsigned short quad) {
  uint8_t* pairs = array + place.first / 2;
  if (place.is_packed) {
    *reinterpret_cast<unsigned short*>(pairs) = quad;
    return;
  }
  for (int i = 0; i < 2; ++i) {
    if (2 * i < place.count) pairs[i] = uint8_t(quad >> 8 * i & 0xff);
  }
}
bool is_pair_aligned(const uint8_t* codes) {
  return reinterpret_cast<uintptr_t>(codes) % 2 == 0;
}

template <class In>
struct EncodeInt4 {
  uint16_t* scales;  // bf16
  uint8_t* codes;
  int32_t* is_finite;
  Difference<In> difference;
};

// scale = bf16(max |x| / 7);  code = round(x * (1 / scale)).
// As encode_int8_kernel, with a maximum for each quad of the lanes: all are loaded before the first
// is reduced. Moves 8.5 bytes per element, 4.5 without reference, 2 less where `in` is bf16.
template <class In>
__global__ void __launch_bounds__(kThreads) encode_int4_kernel(EncodeInt4<In> e) {
  const int64_t warp = warp_index();
  Quad x[kQuads];
  for (int i = 0; i < kQuads; ++i) x[i] = e.difference.load_quad(e.difference.place(warp, i));
  const bool is_first_lane = threadIdx.x % kWarp == 0;
  for (int i = 0; i < kQuads; ++i) {
    const int64_t block = warp * kQuads + i;
    if (block * kInt4Block >= e.difference.count) return;
    const int maximum = warp_max(absolute_maximum_bits(x[i], 0));
    if (maximum >= backend::kInfinityBits) {
      if (is_first_lane) *e.is_finite = 0;
      return;
    }
    const backend::Int4Scale scale = backend::int4_scale(__int_as_float(maximum));
    if (is_first_lane) e.scales[block] = scale.bits;
    store_pairs(e.codes, e.difference.place(warp, i), int4_quad(x[i], scale.inverse));
  }
}

// out = code * scale.  A warp per four blocks of 128. Moves 4.5 bytes per element.
__global__ void __launch_bounds__(kThreads)
    decode_int4_kernel(float* out, const uint16_t* scales, const uint8_t* codes, int64_t count,
                       bool is_aligned) {
  const int64_t warp = warp_index();
  for (int i = 0; i < kQuads; ++i) {
    const int64_t block = warp * kQuads + i;
    if (block * kInt4Block >= count) return;
    const float scale = backend::from_bfloat16(scales[block]);
    const QuadPlace place = place_of(warp, i, count, is_aligned);
    const unsigned quad = load_pairs(codes, place);
    Quad values;
    for (int k = 0; k < 4; k += 2) {
      const auto pair = uint8_t(quad >> 4 * k & 0xff);
      values.at[k] = float(backend::int4_first(pair)) * scale;
      values.at[k + 1] = float(backend::int4_second(pair)) * scale;
    }
    store(out, place, values);
  }
}

template <class In, class Args>
Difference<In> difference_of(const Args& args, bool codes_are_aligned) {
  Difference<In> x{.in = static_cast<const In*>(args.in.data),
                   .reference = args.reference ? args.reference.template as<float>() : nullptr,
                   .count = args.in.element_count(),
                   .is_aligned = codes_are_aligned};
  x.is_aligned = x.is_aligned && is_quad_aligned(x.in) && is_quad_aligned(x.reference);
  return x;
}

template <class In>
void encode(const EncodeInt8Args& args, cudaStream_t stream) {
  auto* codes = args.codes.as<int8_t>();
  const EncodeInt8<In> e{.scales = args.scales.as<float>(),
                         .codes = codes,
                         .is_finite = args.is_finite.as<int32_t>(),
                         .difference = difference_of<In>(args, is_quad_aligned(codes))};
  launch(encode_int8_kernel<In>, grid_of(e.difference.count), stream, e);
}
template <class In>
void encode(const EncodeInt4Args& args, cudaStream_t stream) {
  auto* codes = args.codes.as<uint8_t>();
  const EncodeInt4<In> e{.scales = static_cast<uint16_t*>(args.scales.data),
                         .codes = codes,
                         .is_finite = args.is_finite.as<int32_t>(),
                         .difference = difference_of<In>(args, is_pair_aligned(codes))};
  launch(encode_int4_kernel<In>, grid_of(e.difference.count), stream, e);
}

template <class Args>
void encode_any(const Args& args, cudaStream_t stream) {
  const int64_t count = args.in.element_count();
  CHECK(args.in.dtype == DType::kFloat32 || args.in.dtype == DType::kBfloat16);
  CHECK(!args.reference || args.reference.element_count() == count);
  if (count == 0) return;
  if (args.in.dtype == DType::kBfloat16) {
    encode<Bf16>(args, stream);
  } else {
    encode<float>(args, stream);
  }
}

void check_codes(const Tensor& scales, const Tensor& codes, int64_t count, DType scale_type,
                 int64_t block, int64_t codes_per_byte) {
  CHECK(scales.dtype == scale_type && scales.element_count() == base::div_ceil(count, block));
  CHECK(codes.element_count() == base::div_ceil(count, codes_per_byte));
}
void check_int8(const Tensor& scales, const Tensor& codes, int64_t count) {
  check_codes(scales, codes, count, DType::kFloat32, kInt8Block, 1);
}
void check_int4(const Tensor& scales, const Tensor& codes, int64_t count) {
  check_codes(scales, codes, count, DType::kBfloat16, kInt4Block, 2);
}

}  // namespace

void CudaOps::encode_int8(const EncodeInt8Args& args, Stream& stream) {
  check_int8(args.scales, args.codes, args.in.element_count());
  encode_any(args, handle_of(stream));
}

void CudaOps::decode_int8(const DecodeInt8Args& args, Stream& stream) {
  const int64_t count = args.out.element_count();
  check_int8(args.scales, args.codes, count);
  if (count == 0) return;
  float* out = args.out.as<float>();
  const int8_t* codes = args.codes.as<int8_t>();
  const bool is_aligned = is_quad_aligned(out) && is_quad_aligned(codes);
  launch(decode_int8_kernel, grid_of(count), handle_of(stream), out, args.scales.as<float>(), codes,
         count, is_aligned);
}

void CudaOps::encode_int4(const EncodeInt4Args& args, Stream& stream) {
  check_int4(args.scales, args.codes, args.in.element_count());
  encode_any(args, handle_of(stream));
}

void CudaOps::decode_int4(const DecodeInt4Args& args, Stream& stream) {
  const int64_t count = args.out.element_count();
  check_int4(args.scales, args.codes, count);
  if (count == 0) return;
  float* out = args.out.as<float>();
  const uint8_t* codes = args.codes.as<uint8_t>();
  const bool is_aligned = is_quad_aligned(out) && is_pair_aligned(codes);
  launch(decode_int4_kernel, grid_of(count), handle_of(stream), out,
         static_cast<const uint16_t*>(args.scales.data), codes, count, is_aligned);
}

}  // namespace cuda
