// The int8 codec of the outer loop. Compiled without contraction, and with divisions that round as
// IEEE says (nvcc's default): its bits are those of every other machine.
#include "backend/quantization.h"
#include "base/math.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace cuda {

using backend::DecodeInt8Args;
using backend::DType;
using backend::EncodeInt8Args;
using backend::kInt8Block;
using backend::Stream;

namespace {

constexpr int kThreads = 256;
constexpr int kQuads = int(kInt8Block) / (4 * kWarp);  // Of a thread, in a block of numbers.

// Kernels give a warp one block of 512 numbers; quad `i` of a lane.
__device__ int64_t warp_index() {
  return int64_t(blockIdx.x) * (kThreads / kWarp) + int64_t(threadIdx.x) / kWarp;
}
__device__ QuadPlace place_of(int64_t block, int i, int64_t count, bool is_aligned) {
  const int lane = int(threadIdx.x) % kWarp;
  return quad_place(block * kInt8Block + 4 * (i * kWarp + lane), count, is_aligned);
}
Grid grid_of(int64_t block_count) {
  return {.blocks = unsigned(base::div_ceil(block_count, kThreads / kWarp)), .threads = kThreads};
}

__device__ unsigned encode_quad(const Quad& x, float inverse) {
  unsigned codes = 0;
  for (int k = 0; k < 4; ++k)
    codes |= unsigned(uint8_t(backend::int8_code(x.at[k], inverse))) << 8 * k;
  return codes;
}

template <class In>
struct Encode {
  float* scales;
  int8_t* codes;
  int32_t* is_finite;
  const In* in;
  const float* reference;  // nullptr: zeros.
  int64_t count;
  bool is_aligned;
};

// x = reference - in;  scale = max |x| / 127;  code = round(x * (127 / max |x|)).
// A warp per block of 512 holds its numbers in registers from the first pass (the maximum) to the
// second (the codes). All lanes make the same two divisions. Whoever sees what is not finite clears
// the flag: many may, all write the same. Moves 9 bytes per element, 5 without reference, 2 less
// where `in` is bf16.
template <class In>
__global__ void __launch_bounds__(kThreads) encode_kernel(Encode<In> e) {
  const int64_t block = warp_index();
  if (block * kInt8Block >= e.count) return;
  Quad x[kQuads];
  int maximum = 0;
  for (int i = 0; i < kQuads; ++i) {
    const QuadPlace place = place_of(block, i, e.count, e.is_aligned);
    const Quad in = load(e.in, place);
    const Quad reference = e.reference ? load(e.reference, place) : Quad{};
    for (int k = 0; k < 4; ++k) x[i].at[k] = reference.at[k] - in.at[k];
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
  for (int i = 0; i < kQuads; ++i) {
    const QuadPlace place = place_of(block, i, e.count, e.is_aligned);
    store_codes(e.codes, place, encode_quad(x[i], scale.inverse));
  }
}

// out = code * scale.  A warp per block of 512. Moves 5 bytes per element.
__global__ void __launch_bounds__(kThreads)
    decode_kernel(float* out, const float* scales, const int8_t* codes, int64_t count,
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

template <class In>
void encode(const EncodeInt8Args& args, cudaStream_t stream) {
  Encode<In> e{.scales = args.scales.as<float>(),
               .codes = args.codes.as<int8_t>(),
               .is_finite = args.is_finite.as<int32_t>(),
               .in = static_cast<const In*>(args.in.data),
               .reference = args.reference ? args.reference.as<float>() : nullptr,
               .count = args.in.element_count()};
  e.is_aligned = is_quad_aligned(e.codes) && is_quad_aligned(e.in) && is_quad_aligned(e.reference);
  launch(encode_kernel<In>, grid_of(args.scales.element_count()), stream, e);
}

}  // namespace

void CudaOps::encode_int8(const EncodeInt8Args& args, Stream& stream) {
  const int64_t count = args.in.element_count();
  CHECK(args.in.dtype == DType::kFloat32 || args.in.dtype == DType::kBfloat16);
  CHECK(!args.reference || args.reference.element_count() == count);
  CHECK(args.codes.element_count() == count);
  CHECK(args.scales.element_count() == base::div_ceil(count, kInt8Block));
  if (count == 0) return;
  if (args.in.dtype == DType::kBfloat16) {
    encode<Bf16>(args, handle_of(stream));
  } else {
    encode<float>(args, handle_of(stream));
  }
}

void CudaOps::decode_int8(const DecodeInt8Args& args, Stream& stream) {
  const int64_t count = args.out.element_count();
  CHECK(args.codes.element_count() == count);
  CHECK(args.scales.element_count() == base::div_ceil(count, kInt8Block));
  if (count == 0) return;
  float* out = args.out.as<float>();
  const int8_t* codes = args.codes.as<int8_t>();
  const bool is_aligned = is_quad_aligned(out) && is_quad_aligned(codes);
  launch(decode_kernel, grid_of(args.scales.element_count()), handle_of(stream), out,
         args.scales.as<float>(), codes, count, is_aligned);
}

}  // namespace cuda
