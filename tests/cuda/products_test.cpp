// Products against the CPU's: every way to lay out the operands, and the choices that timing makes.
#include <fmt/format.h>

#include "cuda/device_under_test.h"
#include "cuda/pair.h"

using namespace cuda_test;

namespace {

struct Case {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  DType out = DType::kBfloat16;
  // Of each matrix in its memory, in bf16 numbers: 8 leaves it aligned to 16 bytes only.
  int64_t a_offset = 0, b_offset = 0, out_offset = 0;
  bool zeros = false;  // In b.

  std::string describe() const {
    return fmt::format("{}x{}x{} ta {} tb {} add {} out {} offsets {} {} {} zeros {}", m, n, k,
                       transpose_a, transpose_b, accumulate, int(out), a_offset, b_offset,
                       out_offset, zeros);
  }
};

// A matrix `offset` numbers behind the begin of its memory.
Tensor place(Side& side, DType dtype, Values values, const Shape& shape, int64_t offset) {
  values.insert(values.begin(), size_t(offset), 0.0);
  const Shape whole{int64_t(values.size())};
  const Tensor all =
      dtype == DType::kFloat32 ? side.fp32(values, whole) : side.compute(values, whole);
  return all.slice(offset, shape);
}

Values run(Side& side, const Case& c) {
  const Values a = bf16_values(c.m * c.k, 1), before = bf16_values(c.m * c.n, 3);
  const Values b = c.zeros ? Values(size_t(c.n * c.k)) : bf16_values(c.n * c.k, 2);
  const Tensor out = place(side, c.out, before, {c.m, c.n}, c.out_offset);
  const Shape a_shape = c.transpose_a ? Shape{c.k, c.m} : Shape{c.m, c.k};
  const Shape b_shape = c.transpose_b ? Shape{c.n, c.k} : Shape{c.k, c.n};
  side.ops().matmul({.out = out,
                     .a = place(side, DType::kBfloat16, a, a_shape, c.a_offset),
                     .b = place(side, DType::kBfloat16, b, b_shape, c.b_offset),
                     .transpose_a = c.transpose_a,
                     .transpose_b = c.transpose_b,
                     .accumulate = c.accumulate},
                    side.stream());
  return side.download(out);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const bool accumulate : {false, true})
        for (const DType out : {DType::kBfloat16, DType::kFloat32})
          cases.push_back({48, 72, 64, transpose_a, transpose_b, accumulate, out});
  cases.push_back({.m = 1, .n = 320, .k = 64, .transpose_b = true});
  cases.push_back({.m = 40, .n = 24, .k = 8, .transpose_b = true, .a_offset = 8});
  cases.push_back({.m = 40, .n = 24, .k = 16, .b_offset = 8});
  cases.push_back({.m = 40, .n = 24, .k = 16, .accumulate = true, .out_offset = 8});
  // Few outputs of long sums, which are split: the parts must not be rounded to bf16.
  cases.push_back({.m = 32, .n = 64, .k = 4096, .transpose_a = true});
  // An operand that nobody has filled yet.
  cases.push_back({.m = 56, .n = 24, .k = 32, .zeros = true});
  cases.push_back({.m = 56, .n = 24, .k = 32, .accumulate = true, .zeros = true});
  return cases;
}

// fp32 sums of k products in another order; a bf16 result is rounded once. What is added to a bf16
// output is rounded before, too: cuBLASLt's kernels hand their sum over in the output's dtype (seen
// with 13.1 on an H200: 1.2 spacings of the result off). Nothing in a model adds to bf16.
ops_test::Tolerance tolerance_of(const Case& c, const Values& expected) {
  const bool is_rounded = c.out == DType::kBfloat16;
  ops_test::Tolerance tolerance{.relative = is_rounded ? 1.01 * kBf16Rounding : 0,
                                .of_largest = c.k > 1000 ? 1e-5 : 2e-6};
  if (!is_rounded || !c.accumulate) return tolerance;
  const Values before = bf16_values(c.m * c.n, 3);
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    largest = std::max(largest, std::abs(double(expected[i]) - double(before[i])));
  tolerance.absolute = 1.01 * kBf16Rounding * largest;
  return tolerance;
}

void require_products(bool tune, bool deterministic) {
  Side cpu(std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front()));
  Side device(std::move(
      backend::make_cuda_backends(
          {.ranks = 1, .deterministic = deterministic, .attention = "plain", .tune_products = tune})
          .front()));
  for (const Case& c : all_cases()) {
    INFO(c.describe() << " tune " << tune << " deterministic " << deterministic);
    const Values expected = run(cpu, c), found = run(device, c);
    ops_test::require_close(found, expected, tolerance_of(c, expected));
    if (c.zeros && !c.accumulate) REQUIRE(found == Values(size_t(c.m * c.n)));
    REQUIRE(run(device, c) == found);  // The choice is made by now.
  }
}

}  // namespace

TEST_CASE("cuda products: the first choice of the library", "[products]") {
  require_products(false, false);
}

TEST_CASE("cuda products: the choice that timing makes", "[products]") {
  require_products(true, false);
}

TEST_CASE("cuda products: deterministic choices", "[products]") {
  require_products(true, true);
}
