// Operations on each element by itself: rotary embedding, SwiGLU, addition, conversion. All are
// bound by memory; they are cut by rows.
#include <cstring>

#include "cpu/bfloat16.h"
#include "cpu/cpu_backend.h"
#include "cpu/pointwise_rows.h"
#include "cpu/vector_math.h"

namespace cpu {

using backend::AddArgs;
using backend::CastArgs;
using backend::DType;
using backend::RopeArgs;
using backend::Stream;
using backend::SumTensorsArgs;
using backend::SwigluBackwardArgs;
using backend::SwigluForwardArgs;
using backend::Tensor;

namespace {

constexpr int64_t kPieceElements = 65536;

void swiglu_row(const float* gate, const float* up, float* out, int64_t count) {
#pragma omp simd
  for (int64_t f = 0; f < count; ++f) out[f] = gate[f] * sigmoid(gate[f]) * up[f];
}

// d silu(g) / dg = s + g s (1 - s) with s = sigmoid(g).
template <bool kWithOut>
void swiglu_backward_row(float* gate, float* up, const float* dy, float* out, int64_t count) {
#pragma omp simd
  for (int64_t f = 0; f < count; ++f) {
    const float g = gate[f], u = up[f], d = dy[f];
    const float s = sigmoid(g);
    const float silu = g * s;
    if (kWithOut) out[f] = silu * u;
    gate[f] = d * u * (s + silu * (1.0f - s));
    up[f] = d * silu;
  }
}

}  // namespace

void CpuOps::rope(const RopeArgs& args, Stream&) {
  const int64_t rotated = args.heads + args.kv_heads;
  const int64_t stride = (args.heads + 2 * args.kv_heads) * args.head_size;
  const int64_t rows = args.qkv.element_count() / stride;
  CHECK(args.head_size % 2 == 0 && args.qkv.element_count() == rows * stride);
  CHECK(args.table.element_count() >= args.sequence_length * args.head_size);
  float* qkv = args.qkv.as<float>();
  const float* table = args.table.as<float>();
  workers_.for_pieces(rows, rows_per_piece(stride), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      rotate_heads(qkv + row * stride, rotated, args.head_size / 2,
                   table + row % args.sequence_length * args.head_size,
                   args.inverse ? -1.0f : 1.0f);
    }
  });
}

void CpuOps::swiglu_forward(const SwigluForwardArgs& args, Stream&) {
  const int64_t width = args.gate_up.shape[1] / 2, rows = args.gate_up.shape[0];
  CHECK(args.gate_up.shape[1] == 2 * width && args.out.element_count() == rows * width);
  const float* gate_up = args.gate_up.as<float>();
  float* out = args.out.as<float>();
  workers_.for_pieces(rows, rows_per_piece(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = gate_up + row * 2 * width;
      swiglu_row(gate, gate + width, out + row * width, width);
    }
  });
}

void CpuOps::swiglu_backward(const SwigluBackwardArgs& args, Stream&) {
  const int64_t width = args.gate_up.shape[1] / 2, rows = args.gate_up.shape[0];
  CHECK(args.gate_up.shape[1] == 2 * width && args.out_gradient.element_count() == rows * width);
  CHECK(!args.out || args.out.element_count() == rows * width);
  float* gate_up = args.gate_up.as<float>();
  const float* dy = args.out_gradient.as<float>();
  float* out = args.out ? args.out.as<float>() : nullptr;
  workers_.for_pieces(rows, rows_per_piece(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* gate = gate_up + row * 2 * width;
      if (out) {
        swiglu_backward_row<true>(gate, gate + width, dy + row * width, out + row * width, width);
      } else {
        swiglu_backward_row<false>(gate, gate + width, dy + row * width, nullptr, width);
      }
    }
  });
}

void CpuOps::add(const AddArgs& args, Stream&) {
  CHECK(args.out.shape == args.in.shape);
  float* out = args.out.as<float>();
  const float* in = args.in.as<float>();
  workers_.for_pieces(args.out.element_count(), kPieceElements,
                      [&](int64_t begin, int64_t end, int) {
#pragma omp simd
                        for (int64_t i = begin; i < end; ++i) out[i] += in[i];
                      });
}

// A block at a time, in registers and the nearest cache: `out` may be one of the tensors.
void CpuOps::sum_tensors(const SumTensorsArgs& args, Stream&) {
  CHECK(!args.in.empty() && args.in.size() <= size_t(backend::kRanksMax));
  for (const Tensor& in : args.in) CHECK(in.element_count() == args.out.element_count());
  float* const out = args.out.as<float>();
  workers_.for_pieces(args.out.element_count(), kPieceElements,
                      [&](int64_t begin, int64_t end, int) {
                        constexpr int64_t kBlock = 1024;
                        float sums[kBlock];
                        for (int64_t block = begin; block < end; block += kBlock) {
                          const int64_t count = std::min(kBlock, end - block);
                          std::copy_n(args.in[0].as<float>() + block, count, sums);
                          for (const Tensor& tensor : args.in.subspan(1)) {
                            const float* const in = tensor.as<float>() + block;
#pragma omp simd
                            for (int64_t i = 0; i < count; ++i) sums[i] += in[i];
                          }
                          std::copy_n(sums, count, out + block);
                        }
                      });
}

void CpuOps::cast(const CastArgs& args, Stream&) {
  const int64_t count = args.out.element_count();
  CHECK(args.in.element_count() == count);
  const DType from = args.in.dtype, to = args.out.dtype;
  const bool narrows = from == DType::kFloat32 && to == DType::kBfloat16;
  const bool widens = from == DType::kBfloat16 && to == DType::kFloat32;
  CHECK(from == to || narrows || widens, "no conversion from dtype {} to {}", int(from), int(to));
  workers_.for_pieces(count, kPieceElements, [&](int64_t begin, int64_t end, int) {
    const Tensor in = args.in.reshape({count}).slice(begin, {end - begin});
    const Tensor out = args.out.reshape({count}).slice(begin, {end - begin});
    if (narrows) {
      to_bfloat16(in.as<float>(), static_cast<Bfloat16*>(out.data), end - begin);
    } else if (widens) {
      to_float(static_cast<const Bfloat16*>(in.data), out.as<float>(), end - begin);
    } else {
      std::memcpy(out.data, in.data, size_t(in.byte_count()));
    }
  });
}

void CpuOps::zero(const Tensor& out, Stream&) {
  constexpr int64_t kPieceBytes = 4 * kPieceElements;
  workers_.for_pieces(out.byte_count(), kPieceBytes, [&](int64_t begin, int64_t end, int) {
    std::memset(static_cast<char*>(out.data) + begin, 0, size_t(end - begin));
  });
}

}  // namespace cpu
