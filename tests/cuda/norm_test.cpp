// RMSNorm on CUDA against the CPU. The emulated device has 4 multiprocessors, so the backward's
// blocks have several of the rows here.
#include <fmt/format.h>

#include "cuda/pair.h"

using namespace cuda_test;

namespace {

struct Size {
  int64_t rows, width;
};
// Packs of 8 that fill no warp, two packs per thread of which the second is for some only, 256
// threads; widths without packs; and what is wider than the registers of the backward, of the
// forward.
constexpr Size kSizes[] = {{1, 8},   {150, 24}, {70, 520}, {19, 4096}, {1, 1},
                           {40, 65}, {20, 333}, {9, 8200}, {2, 16392}};

// Results are the CPU's, rounded once; sums over a row in another order move fp32 by some 1e-6.
constexpr Tolerance kRounded{.relative = 1.01 * kBf16Rounding, .of_largest = 2e-6};
constexpr Tolerance kSum{.of_largest = 2e-6};
// The CPU adds up to 1000 squares one after the other.
constexpr Tolerance kRstd{.relative = 5e-6};
// CUDA takes the norm of the sum as it is stored, in bf16: that is a rounding more, and it moves
// the row's rstd by a part of one.
constexpr Tolerance kRoundedTwice{.relative = 2.5 * kBf16Rounding};

struct Inputs {
  Shape shape;
  int64_t width;
  Values in, delta, weight, out_gradient, residual, weight_gradient;
};

Inputs make_inputs(const Size& size, double deviation = 1) {
  const int64_t count = size.rows * size.width;
  return {.shape = {size.rows, size.width},
          .width = size.width,
          .in = bf16_values(count, 1, deviation),
          .delta = bf16_values(count, 2, deviation),
          .weight = bf16_values(size.width, 3),
          .out_gradient = bf16_values(count, 4),
          .residual = bf16_values(count, 5),
          .weight_gradient = ops_test::random_values(size.width, 6)};
}

// As the forward stores it.
Values inverse_rms(const Values& in, int64_t width) {
  Values rstd;
  for (size_t row = 0; row < in.size(); row += size_t(width)) {
    double squares = 0;
    for (size_t c = 0; c < size_t(width); ++c) squares += in[row + c] * in[row + c];
    rstd.push_back(float(1 / std::sqrt(squares / double(width) + 1e-5)));
  }
  return rstd;
}

enum class Residual { kAbsent, kApart, kInPlace };

std::vector<Values> run_backward(Side& side, const Inputs& inputs, Residual kind, bool with_out) {
  const Tensor dw = side.fp32(inputs.weight_gradient, {inputs.width});
  const Tensor out = with_out ? side.compute_out(inputs.shape) : Tensor{};
  Tensor dx = side.compute_out(inputs.shape), dr;
  if (kind != Residual::kAbsent) dr = side.compute(inputs.residual, inputs.shape);
  if (kind == Residual::kInPlace) dx = dr;
  side.ops().rmsnorm_backward(
      {.in_gradient = dx,
       .weight_gradient = dw,
       .out = out,
       .out_gradient = side.compute(inputs.out_gradient, inputs.shape),
       .residual_gradient = dr,
       .in = side.compute(inputs.in, inputs.shape),
       .weight = side.compute(inputs.weight, {inputs.width}),
       .rstd = side.fp32(inverse_rms(inputs.in, inputs.width), {inputs.shape[0]})},
      side.stream());
  std::vector<Values> results{side.download(dx), side.download(dw)};
  if (with_out) results.push_back(side.download(out));
  return results;
}

}  // namespace

TEST_CASE("norm: the forward with and without its residual equals the CPU's") {
  for (const Size& size : kSizes) {
    INFO(fmt::format("rows {} width {}", size.rows, size.width));
    const Inputs inputs = make_inputs(size);
    require_same(
        [&](Side& side) {
          const Tensor in = side.compute(inputs.in, inputs.shape);
          const Tensor weight = side.compute(inputs.weight, {size.width});
          const Tensor out = side.compute_out(inputs.shape), sum = side.compute_out(inputs.shape),
                       rstd = side.fp32_out({size.rows});
          side.ops().rmsnorm_forward({.out = out,
                                      .residual_out = sum,
                                      .rstd = rstd,
                                      .in = in,
                                      .delta = side.compute(inputs.delta, inputs.shape),
                                      .weight = weight,
                                      .epsilon = 0.1f},
                                     side.stream());
          std::vector<Values> results{side.download(out), side.download(sum), side.download(rstd)};
          side.ops().rmsnorm_forward({.out = out, .in = in, .weight = weight}, side.stream());
          results.push_back(side.download(out));
          side.ops().rmsnorm_forward(
              {.out = out, .residual_out = sum, .rstd = rstd, .in = in, .weight = weight},
              side.stream());
          for (const Tensor& tensor : {out, sum, rstd}) results.push_back(side.download(tensor));
          return results;
        },
        {kRoundedTwice,
         {.relative = kBf16Rounding},
         {.relative = kBf16Rounding},
         kRounded,
         kRounded,
         {},
         kRstd});
  }
}

TEST_CASE("norm: the forward of zeros and of huge numbers equals the CPU's") {
  for (double deviation : {0.0, 1e15}) {
    for (const Size& size : {Size{5, 520}, Size{5, 65}}) {
      INFO(fmt::format("width {} deviation {}", size.width, deviation));
      const Inputs inputs = make_inputs(size, deviation);
      require_same(
          [&](Side& side) {
            const Tensor out = side.compute_out(inputs.shape), rstd = side.fp32_out({size.rows});
            side.ops().rmsnorm_forward({.out = out,
                                        .rstd = rstd,
                                        .in = side.compute(inputs.in, inputs.shape),
                                        .weight = side.compute(inputs.weight, {size.width})},
                                       side.stream());
            return std::vector<Values>{side.download(out), side.download(rstd)};
          },
          {kRounded, kRstd});
    }
  }
}

TEST_CASE("norm: the forward may write the residual over its input") {
  for (const Size& size : {Size{70, 520}, Size{20, 333}}) {
    const Inputs inputs = make_inputs(size);
    for (bool with_delta : {true, false}) {
      INFO(fmt::format("rows {} width {} with_delta {}", size.rows, size.width, with_delta));
      require_same(
          [&](Side& side) {
            const Tensor in = side.compute(inputs.in, inputs.shape),
                         out = side.compute_out(inputs.shape);
            const Tensor delta = side.compute(inputs.delta, inputs.shape);
            side.ops().rmsnorm_forward({.out = out,
                                        .residual_out = in,
                                        .in = in,
                                        .delta = with_delta ? delta : Tensor{},
                                        .weight = side.compute(inputs.weight, {size.width})},
                                       side.stream());
            return std::vector<Values>{side.download(out), side.download(in)};
          },
          {with_delta ? kRoundedTwice : kRounded, {.relative = with_delta ? kBf16Rounding : 0}});
    }
  }
}

TEST_CASE("norm: the backward equals the CPU's, with every kind of residual gradient") {
  for (const Size& size : kSizes) {
    if (size.width > 10'000) continue;  // As the width before.
    INFO(fmt::format("rows {} width {}", size.rows, size.width));
    const Inputs inputs = make_inputs(size);
    require_same(
        [&](Side& side) {
          std::vector<Values> results = run_backward(side, inputs, Residual::kAbsent, true);
          for (bool with_out : {true, false}) {
            for (Values& values : run_backward(side, inputs, Residual::kInPlace, with_out))
              results.push_back(std::move(values));
          }
          for (Values& values : run_backward(side, inputs, Residual::kApart, false))
            results.push_back(std::move(values));
          return results;
        },
        {kRounded, kSum, kRounded, kRounded, kSum, kRounded, kRounded, kSum, kRounded, kSum});
  }
}

TEST_CASE("norm: the backward of more rows than a large GPU has blocks equals the CPU's") {
  for (const Size& size : {Size{280, 333}, Size{280, 4096}}) {
    INFO(fmt::format("rows {} width {}", size.rows, size.width));
    const Inputs inputs = make_inputs(size);
    require_same([&](Side& side) { return run_backward(side, inputs, Residual::kInPlace, true); },
                 {kRounded, kSum, kRounded});
  }
}

// All tensors begin 2 bytes behind a 16-byte boundary.
TEST_CASE("norm: rows of whole packs that lie between the boundaries") {
  const Size size{9, 24};
  const Inputs inputs = make_inputs(size);
  const Values rstd = inverse_rms(inputs.in, size.width);
  auto shifted = [](Side& side, const Values& values, const Shape& shape) {
    Values longer(values);
    longer.insert(longer.begin(), 0);
    return side.compute(longer, {int64_t(longer.size())}).slice(1, shape);
  };
  require_same(
      [&](Side& side) {
        const Values nothing(inputs.in.size(), -7);
        const Tensor out = shifted(side, nothing, inputs.shape),
                     dx = shifted(side, nothing, inputs.shape),
                     again = shifted(side, nothing, inputs.shape);
        const Tensor in = shifted(side, inputs.in, inputs.shape),
                     weight = shifted(side, inputs.weight, {size.width}),
                     dw = side.fp32(inputs.weight_gradient, {size.width});
        side.ops().rmsnorm_forward({.out = out, .in = in, .weight = weight}, side.stream());
        side.ops().rmsnorm_backward(
            {.in_gradient = dx,
             .weight_gradient = dw,
             .out = again,
             .out_gradient = shifted(side, inputs.out_gradient, inputs.shape),
             .residual_gradient = shifted(side, inputs.residual, inputs.shape),
             .in = in,
             .weight = weight,
             .rstd = side.fp32(rstd, {size.rows})},
            side.stream());
        return std::vector<Values>{side.download(out), side.download(dx), side.download(again),
                                   side.download(dw)};
      },
      {kRounded, kRounded, kRounded, kSum});
}

// Both see the residual as it is stored: rounded.
TEST_CASE("norm: forward and backward agree about the row's norm and the output's bits") {
  for (const Size& size : {Size{70, 520}, Size{20, 333}, Size{2, 8200}}) {
    const Inputs inputs = make_inputs(size);
    require_same(
        [&](Side& side) {
          const Tensor out = side.compute_out(inputs.shape), again = side.compute_out(inputs.shape),
                       residual = side.compute_out(inputs.shape), rstd = side.fp32_out({size.rows});
          const Tensor weight = side.compute(inputs.weight, {size.width});
          side.ops().rmsnorm_forward({.out = out,
                                      .residual_out = residual,
                                      .rstd = rstd,
                                      .in = side.compute(inputs.in, inputs.shape),
                                      .delta = side.compute(inputs.delta, inputs.shape),
                                      .weight = weight},
                                     side.stream());
          side.ops().rmsnorm_backward(
              {.in_gradient = side.compute_out(inputs.shape),
               .weight_gradient = side.fp32(inputs.weight_gradient, {size.width}),
               .out = again,
               .out_gradient = side.compute(inputs.out_gradient, inputs.shape),
               .in = residual,
               .weight = weight,
               .rstd = rstd},
              side.stream());
          const Values made = side.download(again);
          REQUIRE(made == side.download(out));
          ops_test::require_close(side.download(rstd),
                                  inverse_rms(side.download(residual), size.width), kRstd);
          return std::vector<Values>{made};
        },
        {kRoundedTwice});
  }
}
