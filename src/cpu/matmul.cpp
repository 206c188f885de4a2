// Matrix products. OpenBLAS runs single-threaded; our pool cuts the product, so that one pool
// serves everything and the cut is fixed. The longer side of `out` is cut, because every piece
// packs the operand of the other side again. What has few rows is left to few_rows.h.
#include <cblas.h>

#include "cpu/cpu_backend.h"
#include "cpu/few_rows.h"

namespace cpu {

using backend::MatmulArgs;
using backend::Stream;

namespace {

// A piece below this costs more to hand over than to compute.
constexpr int64_t kPieceFlopMin = 1'000'000;
// The same for few rows, in numbers that are read from memory.
constexpr int64_t kPieceWeightsMin = 32 * 1024;
// A multiple of what the inner kernels of OpenBLAS take at once.
constexpr int64_t kCutMultiple = 16;

}  // namespace

void CpuOps::matmul(const MatmulArgs& args, Stream&) {
  const int64_t m = args.out.shape[0], n = args.out.shape[1];
  const int64_t k = args.a.shape[args.transpose_a ? 0 : 1];
  CHECK(args.out.shape.rank() == 2 && args.a.shape.rank() == 2 && args.b.shape.rank() == 2);
  CHECK(args.a.shape[args.transpose_a ? 1 : 0] == m);
  CHECK(args.b.shape[args.transpose_b ? 1 : 0] == k && args.b.shape[args.transpose_b ? 0 : 1] == n);
  float* const out = args.out.as<float>();
  const float* const a = args.a.as<float>();
  const float* const b = args.b.as<float>();

  if (m <= kFewRows && !args.transpose_a && args.transpose_b && !args.accumulate) {
    const int64_t columns_min = base::div_ceil(kPieceWeightsMin, std::max<int64_t>(1, k));
    workers_.for_threads(n, columns_min, kCutMultiple, [&](int64_t begin, int64_t end, int) {
      multiply_few_rows({.a = a,
                         .a_stride = k,
                         .m = m,
                         .b = b + begin * k,
                         .b_stride = k,
                         .n = end - begin,
                         .k = k,
                         .out = out + begin,
                         .out_stride = n});
    });
    return;
  }
  // out[m_begin.., n_begin..] of size (m_count, n_count).
  auto compute = [&](int64_t m_begin, int64_t m_count, int64_t n_begin, int64_t n_count) {
    const float* a_part = a + m_begin * (args.transpose_a ? 1 : k);
    const float* b_part = b + n_begin * (args.transpose_b ? k : 1);
    cblas_sgemm(CblasRowMajor, args.transpose_a ? CblasTrans : CblasNoTrans,
                args.transpose_b ? CblasTrans : CblasNoTrans, int(m_count), int(n_count), int(k),
                1.0f, a_part, int(args.transpose_a ? m : k), b_part, int(args.transpose_b ? k : n),
                args.accumulate ? 1.0f : 0.0f, out + m_begin * n + n_begin, int(n));
  };
  const int64_t longer = std::max(m, n);
  const int64_t flop_per_line = 2 * std::min(m, n) * k;
  const int64_t lines_min = base::div_ceil(kPieceFlopMin, std::max<int64_t>(1, flop_per_line));
  workers_.for_threads(longer, lines_min, kCutMultiple, [&](int64_t begin, int64_t end, int) {
    if (m >= n) {
      compute(begin, end - begin, 0, n);
    } else {
      compute(0, m, begin, end - begin);
    }
  });
}

}  // namespace cpu
