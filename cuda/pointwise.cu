// Operations on each element by itself: rotary embedding, addition, conversion. All are bound by
// memory: every number is read once and written once, eight at a time (flat arrays: four).
#include <algorithm>

#include "base/math.h"
#include "cuda/access.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "cuda/reduce.h"

namespace cuda {

using backend::DType;

namespace {

constexpr int kThreadsMax = 256;

struct Rope {
  Bf16* qkv;
  const float* table;  // Per position `half` cosines, then `half` sines.
  int64_t stride;      // Of rows of qkv.
  int sequence_length;
  int rotated_heads;  // H + K
  int half;           // D / 2
  float sine_sign;    // -1 for the inverse.
};

constexpr int kHeadsAtOnce = 2;
// Of 256 threads, on a multiprocessor: with 64 registers each. With less, the loads of the second
// head are put behind the first head's arithmetic.
constexpr int kRopeBlocks = 4;

// The lanes of a thread in the two halves of a head, before the rotation.
template <int kLanes>
struct RopeHead {
  Lanes<kLanes> low, high;
};

template <int kLanes>
__device__ RopeHead<kLanes> load_head(const Bf16* at, int half) {
  return {load_lanes<kLanes>(at), load_lanes<kLanes>(at + half)};
}

template <int kLanes>
__device__ void store_rotated(Bf16* at, int half, RopeHead<kLanes> head,
                              const Lanes<kLanes>& cosine, const Lanes<kLanes>& sine) {
  for (int i = 0; i < kLanes; ++i) {
    const float x = head.low.at[i], y = head.high.at[i];
    head.low.at[i] = x * cosine.at[i] - y * sine.at[i];
    head.high.at[i] = y * cosine.at[i] + x * sine.at[i];
  }
  store_lanes(at, head.low);
  store_lanes(at + half, head.high);
}

// low = low cos - high sin,  high = high cos + low sin,  where low and high are the halves of a
// head. A block has a row: threadIdx.x says which lanes of a half, threadIdx.y which heads, so that
// a thread reads its cosines and sines once for all its heads. Per rotated element 2 bytes are read
// and 2 written; the table (4 bytes for each element of one head) comes from the caches, and is
// on its way together with two heads.
template <int kLanes>
__global__ void __launch_bounds__(kThreadsMax, kRopeBlocks) rope_kernel(const Rope p) {
  const int lane = int(threadIdx.x) * kLanes, apart = int(blockDim.y) * 2 * p.half;
  int left = p.rotated_heads - int(threadIdx.y);  // Heads from this one on.
  Bf16* at = p.qkv + blockIdx.x * p.stride + int(threadIdx.y) * 2 * p.half + lane;
  const float* const angles = p.table + int64_t(int(blockIdx.x) % p.sequence_length) * 2 * p.half;
  Lanes<kLanes> cosine, sine;
  for (bool is_first = true; left > 0; is_first = false) {
    const bool has_second = left > int(blockDim.y);
    const RopeHead<kLanes> first = load_head<kLanes>(at, p.half);
    // Where there is none, the first again: no branch stands between the loads.
    const RopeHead<kLanes> second = load_head<kLanes>(at + (has_second ? apart : 0), p.half);
    if (is_first) {
      cosine = load_lanes<kLanes>(angles + lane);
      sine = load_lanes<kLanes>(angles + p.half + lane);
      for (int i = 0; i < kLanes; ++i) sine.at[i] *= p.sine_sign;
    }
    store_rotated(at, p.half, first, cosine, sine);
    if (has_second) store_rotated(at + apart, p.half, second, cosine, sine);
    at += kHeadsAtOnce * apart;
    left -= kHeadsAtOnce * int(blockDim.y);
  }
}

// Calls body(place) for the fours of a flat array that are this thread's. For the whole grid.
template <class Body>
__device__ void for_quads(int64_t count, bool is_aligned, const Body& body) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x * 4;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 4; i < count; i += step)
    body(quad_place(i, count, is_aligned));
}

// out += in.  Reads 2 and writes 1 number per element.
template <class T>
__global__ void __launch_bounds__(kThreadsMax)
    add_kernel(T* out, const T* in, int64_t count, bool is_aligned) {
  for_quads(count, is_aligned, [&](const QuadPlace& place) {
    Quad sum = load(out, place);
    const Quad addend = load(in, place);
    for (int k = 0; k < 4; ++k) sum.at[k] += addend.at[k];
    store(out, place, sum);
  });
}

// out = in, rounded to nearest where To is narrower. Reads and writes 1 number per element.
template <class To, class From>
__global__ void __launch_bounds__(kThreadsMax)
    cast_kernel(To* out, const From* in, int64_t count, bool is_aligned) {
  for_quads(count, is_aligned, [&](const QuadPlace& place) { store(out, place, load(in, place)); });
}

// More blocks than the GPU runs at once, so that it is busy to the end.
Grid grid_of_quads(int64_t count, int multiprocessors) {
  const int64_t blocks = base::div_ceil(count, 4 * kThreadsMax);
  return {.blocks = unsigned(std::min<int64_t>(blocks, int64_t{32} * multiprocessors)),
          .threads = kThreadsMax};
}

template <class T>
void launch_add(T* out, const T* in, int64_t count, int multiprocessors, cudaStream_t stream) {
  const bool is_aligned = is_quad_aligned(out) && is_quad_aligned(in);
  launch(add_kernel<T>, grid_of_quads(count, multiprocessors), stream, out, in, count, is_aligned);
}

template <class To, class From>
void launch_cast(To* out, const From* in, int64_t count, int multiprocessors, cudaStream_t stream) {
  const bool is_aligned = is_quad_aligned(out) && is_quad_aligned(in);
  launch(cast_kernel<To, From>, grid_of_quads(count, multiprocessors), stream, out, in, count,
         is_aligned);
}

struct Addends {
  const float* at[backend::kRanksMax];
  int tensor_count;
};

// out = at[0] + at[1] + ... in this order, a quad per thread and turn. `out` may be one of them: a
// thread has read all its addends before it writes. Moves 4 bytes per element and tensor, and 4.
__global__ void __launch_bounds__(kThreadsMax)
    sum_tensors_kernel(float* out, Addends in, int64_t count, bool is_aligned) {
  const int64_t stride = 4 * int64_t(kThreadsMax) * gridDim.x;
  for (int64_t first = 4 * (int64_t(blockIdx.x) * kThreadsMax + threadIdx.x); first < count;
       first += stride) {
    const QuadPlace place = quad_place(first, count, is_aligned);
    Quad sum = load(in.at[0], place);
    for (int t = 1; t < in.tensor_count; ++t) {
      const Quad addend = load(in.at[t], place);
      for (int k = 0; k < 4; ++k) sum.at[k] += addend.at[k];
    }
    store(out, place, sum);
  }
}

}  // namespace

void CudaOps::rope(const backend::RopeArgs& args, backend::Stream& stream) {
  const int64_t stride = (args.heads + 2 * args.kv_heads) * args.head_size;
  const int64_t rows = args.qkv.element_count() / stride;
  CHECK(args.head_size % 2 == 0 && args.qkv.element_count() == rows * stride);
  CHECK(args.table.element_count() >= args.sequence_length * args.head_size);
  const Rope p{.qkv = bf16(args.qkv),
               .table = fp32(args.table),
               .stride = stride,
               .sequence_length = int(args.sequence_length),
               .rotated_heads = int(args.heads + args.kv_heads),
               .half = int(args.head_size / 2),
               .sine_sign = args.inverse ? -1.0f : 1.0f};
  const bool fits = fits_packs(p.half, {p.qkv, p.table});
  const int across = fits ? p.half / kPack : p.half;  // Threads for one head.
  CHECK(across <= kThreadsMax, "heads of {} are too wide", args.head_size);
  // Every thread gets the same number of heads, or one less.
  const int64_t turns = base::div_ceil(p.rotated_heads, kThreadsMax / across);
  const int64_t down = base::div_ceil(p.rotated_heads, turns);
  launch(fits ? rope_kernel<kPack> : rope_kernel<1>,
         {.blocks = unsigned(rows), .threads = {unsigned(across), unsigned(down)}},
         handle_of(stream), p);
}

void CudaOps::add(const backend::AddArgs& args, backend::Stream& stream) {
  CHECK(args.out.shape == args.in.shape && args.out.dtype == args.in.dtype);
  const int64_t count = args.out.element_count();
  if (count == 0) return;
  const int multiprocessors = properties_.multiprocessors;
  if (args.out.dtype == DType::kFloat32) {
    launch_add(fp32(args.out), fp32(args.in), count, multiprocessors, handle_of(stream));
  } else {
    launch_add(bf16(args.out), bf16(args.in), count, multiprocessors, handle_of(stream));
  }
}

// On any stream: it needs no scratch memory.
void CudaOps::sum_tensors(const backend::SumTensorsArgs& args, backend::Stream& stream) {
  const int64_t count = args.out.element_count();
  CHECK(!args.in.empty() && args.in.size() <= size_t(backend::kRanksMax));
  if (count == 0) return;
  Addends addends{.at = {}, .tensor_count = int(args.in.size())};
  bool is_aligned = is_quad_aligned(args.out.as<float>());
  for (size_t t = 0; t < args.in.size(); ++t) {
    CHECK(args.in[t].element_count() == count);
    addends.at[t] = args.in[t].as<float>();
    is_aligned = is_aligned && is_quad_aligned(addends.at[t]);
  }
  // More blocks than the GPU runs at once, so that it is busy to the end.
  const int64_t blocks = base::div_ceil(count, 4 * kThreadsMax);
  const Grid grid{.blocks = unsigned(std::min<int64_t>(blocks, 32 * properties_.multiprocessors)),
                  .threads = kThreadsMax};
  launch(sum_tensors_kernel, grid, handle_of(stream), args.out.as<float>(), addends, count,
         is_aligned);
}

void CudaOps::cast(const backend::CastArgs& args, backend::Stream& stream) {
  const int64_t count = args.out.element_count();
  CHECK(args.in.element_count() == count);
  const DType from = args.in.dtype, to = args.out.dtype;
  const bool narrows = from == DType::kFloat32 && to == DType::kBfloat16;
  const bool widens = from == DType::kBfloat16 && to == DType::kFloat32;
  CHECK(from == to || narrows || widens, "no conversion from dtype {} to {}", int(from), int(to));
  if (count == 0) return;
  const int multiprocessors = properties_.multiprocessors;
  if (narrows) {
    launch_cast(bf16(args.out), fp32(args.in), count, multiprocessors, handle_of(stream));
  } else if (widens) {
    launch_cast(fp32(args.out), bf16(args.in), count, multiprocessors, handle_of(stream));
  } else {
    check(cudaMemcpyAsync(args.out.data, args.in.data, size_t(args.out.byte_count()),
                          cudaMemcpyDefault, handle_of(stream)),
          "copying a tensor");
  }
}

void CudaOps::zero(const backend::Tensor& out, backend::Stream& stream) {
  check(cudaMemsetAsync(out.data, 0, size_t(out.byte_count()), handle_of(stream)),
        "clearing a tensor");
}

}  // namespace cuda
