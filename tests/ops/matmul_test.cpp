// Matrix products against the triple loop in double.
#include <fmt/format.h>

#include "ops/rig.h"

using namespace ops_test;

namespace {

struct Product {
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
};

struct Inputs {
  Values a, b, out;
};

Values reference(const Product& p, const Inputs& inputs) {
  Values out(static_cast<size_t>(p.m * p.n));
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = p.accumulate ? inputs.out[size_t(i * p.n + j)] : 0;
      for (int64_t l = 0; l < p.k; ++l) {
        sum += inputs.a[size_t(p.transpose_a ? l * p.m + i : i * p.k + l)] *
               inputs.b[size_t(p.transpose_b ? j * p.k + l : l * p.n + j)];
      }
      out[size_t(i * p.n + j)] = sum;
    }
  }
  return out;
}

std::vector<Values> run(Rig& rig, const Product& p, const Inputs& inputs) {
  const Tensor a = rig.upload(inputs.a, p.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k});
  const Tensor b = rig.upload(inputs.b, p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n});
  const Tensor out = p.accumulate ? rig.upload(inputs.out, {p.m, p.n}) : rig.poisoned({p.m, p.n});
  rig.ops().matmul({.out = out,
                    .a = a,
                    .b = b,
                    .transpose_a = p.transpose_a,
                    .transpose_b = p.transpose_b,
                    .accumulate = p.accumulate},
                   rig.stream());
  return {rig.download(out)};
}

Inputs random_inputs(const Product& p, double deviation) {
  return {random_values(p.m * p.k, 1, deviation), random_values(p.k * p.n, 2, deviation),
          random_values(p.m * p.n, 3, deviation)};
}

void require_product(const Product& p, const Inputs& inputs) {
  INFO(fmt::format("m {} n {} k {} transpose a {} b {} accumulate {}", p.m, p.n, p.k, p.transpose_a,
                   p.transpose_b, p.accumulate));
  // fp32 sums of k terms; their errors grow with sqrt(k).
  const Tolerance tolerance{.of_largest = 2e-7 * std::sqrt(double(p.k) + 8)};
  require_everywhere([&](Rig& rig) { return run(rig, p, inputs); },
                     {{reference(p, inputs), tolerance}});
}

}  // namespace

TEST_CASE("matmul equals the triple loop for all transposes and shapes") {
  // From one element to products that are cut along m and along n, with sizes that no vector
  // divides.
  const int64_t shapes[][3] = {{1, 1, 1},    {3, 5, 7},     {1, 70, 33},  {65, 1, 17},
                               {33, 17, 65}, {307, 61, 64}, {50, 401, 67}};
  for (const auto& [m, n, k] : shapes) {
    for (int flags = 0; flags < 8; ++flags) {
      const Product p{m, n, k, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0};
      require_product(p, random_inputs(p, 1));
    }
  }
}

// Below and above where products of few rows have a kernel of their own.
TEST_CASE("matmul of few rows equals the triple loop") {
  for (int64_t m = 1; m <= 18; ++m) {
    for (const int64_t k : {3, 8, 61}) {
      for (const int64_t n : {1, 5, 1030}) {
        const Product p{m, n, k, false, true, false};
        require_product(p, random_inputs(p, 1));
      }
    }
  }
}

TEST_CASE("matmul of zeros and of large values") {
  for (double deviation : {0.0, 1e17, 1e-17}) {
    for (bool accumulate : {false, true}) {
      const Product p{40, 24, 31, false, true, accumulate};
      require_product(p, random_inputs(p, deviation));
    }
  }
}

TEST_CASE("matmul benchmark", "[.benchmark]") {
  Rig rig(0);
  // Forward, input gradient and weight gradient of the layers of a 25M-parameter model, 4096
  // tokens.
  const int64_t tokens = 4096;
  const int64_t layers[][2] = {
      {512, 768}, {512, 512}, {512, 2816}, {1408, 512}, {512, 320}};  // in, out
  for (const auto& [in, out] : layers) {
    for (const Product& p : {Product{tokens, out, in, false, true, false},
                             Product{tokens, in, out, false, false, false},
                             Product{out, in, tokens, true, false, true}}) {
      const Inputs inputs = random_inputs(p, 1);
      const Tensor a = rig.upload(inputs.a, p.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k});
      const Tensor b = rig.upload(inputs.b, p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n});
      const Tensor c = rig.upload(inputs.out, {p.m, p.n});
      run_benchmark(
          rig,
          {.name = "matmul",
           .shape = fmt::format("{}{}{} {}x{}x{}", p.transpose_a ? "T" : "N",
                                p.transpose_b ? "T" : "N", p.accumulate ? "+" : "", p.m, p.n, p.k),
           .flop = 2.0 * double(p.m * p.n * p.k)},
          [&] {
            rig.ops().matmul({.out = c,
                              .a = a,
                              .b = b,
                              .transpose_a = p.transpose_a,
                              .transpose_b = p.transpose_b,
                              .accumulate = p.accumulate},
                             rig.stream());
          });
    }
  }
}
