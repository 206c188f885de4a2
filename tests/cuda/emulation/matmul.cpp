// cuBLASLt's part in the emulation: three loops.
#include "cuda/matmul.h"

#include <cuda_bf16.h>
#include <vector>

#include "emulation/fake_device.h"

namespace cuda {
namespace {

using backend::DType;
using backend::MatmulArgs;
using backend::Tensor;

// As fp32, (rows, columns) row-major, the transpose undone.
std::vector<float> read(const Tensor& tensor, int64_t rows, int64_t columns, bool transpose) {
  CHECK(tensor.dtype == DType::kBfloat16 && tensor.element_count() == rows * columns);
  const auto* values = static_cast<const __nv_bfloat16*>(tensor.data);
  std::vector<float> out(size_t(rows * columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = transpose ? c * rows + r : r * columns + c;
      out[size_t(r * columns + c)] = __bfloat162float(values[at]);
    }
  }
  return out;
}

class EmulatedMatmul final : public Matmul {
 public:
  void run(const MatmulArgs& args, cudaStream_t) override {
    const int64_t m = args.out.shape[0], n = args.out.shape[1];
    const int64_t k = args.a.element_count() / m;
    const std::vector<float> a = read(args.a, m, k, args.transpose_a);
    const std::vector<float> b = read(args.b, k, n, args.transpose_b);
    std::vector<float> row(static_cast<size_t>(n));
    for (int64_t i = 0; i < m; ++i) {
      std::fill(row.begin(), row.end(), 0.0f);
      for (int64_t j = 0; j < k; ++j) {
        const float factor = a[size_t(i * k + j)];
        for (int64_t c = 0; c < n; ++c) row[size_t(c)] += factor * b[size_t(j * n + c)];
      }
      for (int64_t c = 0; c < n; ++c) store(args, i * n + c, row[size_t(c)]);
    }
  }

 private:
  static void store(const MatmulArgs& args, int64_t at, float value) {
    if (args.out.dtype == DType::kFloat32) {
      float* out = args.out.as<float>() + at;
      *out = value + (args.accumulate ? *out : 0.0f);
    } else {
      auto* out = static_cast<__nv_bfloat16*>(args.out.data) + at;
      *out = __float2bfloat16_rn(value + (args.accumulate ? __bfloat162float(*out) : 0.0f));
    }
  }
};

}  // namespace

std::unique_ptr<Matmul> Matmul::create(const MatmulOptions& options) {
  emulation::fake_device().product_multiprocessors = options.multiprocessors;
  return std::make_unique<EmulatedMatmul>();
}

}  // namespace cuda
