// What the tests of CUDA operations share: the CPU backend as the oracle beside the CUDA one, with
// the same numbers in both. The CPU computes in fp32 on inputs that were rounded to bf16, so what
// is left between the two is the rounding of bf16 results and the order of sums.
//
// The same tests are built twice: with the kernels on a processor (test_cuda_emulated, everywhere)
// and with the real ones (test_cuda, where there is a GPU). On a processor every comparison is made
// with threads and blocks in order, reversed and shuffled.
#pragma once

#include <functional>
#include <vector>

#include "ops/rig.h"

namespace cuda_test {

using backend::DType;
using backend::Shape;
using backend::Tensor;
using ops_test::Tolerance;
using ops_test::Values;

// Rounded to bf16, so that both backends see the same input.
Values bf16_values(int64_t count, uint64_t seed, double deviation = 1);
Values rounded_to_bf16(Values values);
// A correct rounding to bf16 is within 2^-8 of a number.
inline constexpr double kBf16Rounding = 0x1p-8;

// One backend in a comparison. CUDA's compute dtype is bf16, the CPU's fp32.
class Side {
 public:
  explicit Side(backend::Backend backend) : backend_(std::move(backend)) {}

  backend::Ops& ops() { return *backend_.ops; }
  backend::Device& device() { return *backend_.device; }
  backend::Stream& stream() { return backend_.device->compute_stream(); }
  bool is_cuda() const { return backend_.device->compute_dtype() == DType::kBfloat16; }

  // Weights and activations: in the compute dtype.
  Tensor compute(const Values& values, const Shape& shape);
  Tensor fp32(const Values& values, const Shape& shape);
  Tensor int32(const std::vector<int32_t>& values, const Shape& shape);
  Tensor bytes(const std::vector<uint8_t>& values, DType dtype, const Shape& shape);
  // For outputs that are overwritten: filled with NaN.
  Tensor compute_out(const Shape& shape);
  Tensor fp32_out(const Shape& shape);
  // Any dtype, as doubles.
  Values download(const Tensor& tensor);

 private:
  Tensor upload(const void* source, DType dtype, const Shape& shape);

  backend::Backend backend_;
  std::vector<std::unique_ptr<backend::Buffer>> buffers_;
};

// Makes inputs, calls operations, returns outputs in the order of the tolerances.
using Run = std::function<std::vector<Values>(Side&)>;

// Runs it on both, on CUDA in each order of threads and twice (two runs have the same bits), and
// compares.
void require_same(const Run& run, const std::vector<Tolerance>& tolerances);

}  // namespace cuda_test
