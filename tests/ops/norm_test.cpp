// RMSNorm with its residual addition against the formula in double.
#include <fmt/format.h>

#include "ops/rig.h"

using namespace ops_test;

namespace {

constexpr double kEpsilon = 1e-5f;

struct NormForward {
  Values out, residual, rstd;
};

// `delta` may be empty.
NormForward forward(const Values& in, const Values& delta, const Values& weight) {
  const size_t width = weight.size(), rows = in.size() / width;
  NormForward f{Values(in.size()), in, Values(rows)};
  for (size_t i = 0; i < delta.size(); ++i) f.residual[i] += delta[i];
  for (size_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (size_t c = 0; c < width; ++c)
      squares += f.residual[row * width + c] * f.residual[row * width + c];
    f.rstd[row] = 1 / std::sqrt(squares / double(width) + kEpsilon);
    for (size_t c = 0; c < width; ++c)
      f.out[row * width + c] = f.residual[row * width + c] * f.rstd[row] * weight[c];
  }
  return f;
}

struct Gradients {
  Values in, weight;
};

Gradients backward(const Values& x, const Values& weight, const Values& dy) {
  const size_t width = weight.size();
  const Values rstd = forward(x, {}, weight).rstd;
  Gradients g{Values(x.size()), Values(width)};
  for (size_t row = 0; row < rstd.size(); ++row) {
    const size_t at = row * width;
    double mean = 0;
    for (size_t c = 0; c < width; ++c) mean += dy[at + c] * weight[c] * x[at + c] / double(width);
    for (size_t c = 0; c < width; ++c) {
      g.in[at + c] =
          rstd[row] * (dy[at + c] * weight[c] - x[at + c] * rstd[row] * rstd[row] * mean);
      g.weight[c] += dy[at + c] * x[at + c] * rstd[row];
    }
  }
  return g;
}

Values plus(Values a, const Values& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

struct Size {
  int64_t rows, width;
};
// One element, one row, widths that no vector divides, more rows than a piece has.
constexpr Size kSizes[] = {{1, 1}, {1, 333}, {5, 7}, {300, 48}, {131, 65}};

}  // namespace

TEST_CASE("the reference gradient of rmsnorm agrees with central differences") {
  const int64_t rows = 3, width = 5;
  const Values x = random_values(rows * width, 1), weight = random_values(width, 2),
               dy = random_values(rows * width, 3);
  const Gradients g = backward(x, weight, dy);
  require_close(
      g.in, central_differences([&](const Values& v) { return forward(v, {}, weight).out; }, x, dy),
      kDifferences);
  require_close(
      g.weight,
      central_differences([&](const Values& v) { return forward(x, {}, v).out; }, weight, dy),
      kDifferences);
}

TEST_CASE("rmsnorm forward equals the formula") {
  for (const Size& size : kSizes) {
    for (double deviation : {1.0, 0.0, 1e15, 1e-15}) {
      INFO(fmt::format("rows {} width {} deviation {}", size.rows, size.width, deviation));
      const Shape shape{size.rows, size.width};
      const Values in = random_values(size.rows * size.width, 1, deviation);
      const Values delta = random_values(size.rows * size.width, 2, deviation),
                   weight = random_values(size.width, 3);
      const Tolerance tolerance{.of_largest = 1e-6};
      const NormForward sum = forward(in, delta, weight), alone = forward(in, {}, weight);
      require_everywhere(
          [&](Rig& rig) {
            const Tensor out = rig.poisoned(shape), residual = rig.poisoned(shape),
                         rstd = rig.poisoned({size.rows});
            rig.ops().rmsnorm_forward({.out = out,
                                       .residual_out = residual,
                                       .rstd = rstd,
                                       .in = rig.upload(in, shape),
                                       .delta = rig.upload(delta, shape),
                                       .weight = rig.upload(weight, {size.width})},
                                      rig.stream());
            return std::vector<Values>{rig.download(out), rig.download(residual),
                                       rig.download(rstd)};
          },
          {{sum.out, tolerance},
           {sum.residual, {.relative = 1e-7, .of_largest = 1e-7}},
           {sum.rstd, {.relative = 1e-6}}});
      require_everywhere(  // Without delta, and with nothing that may be absent.
          [&](Rig& rig) {
            const Tensor out = rig.poisoned(shape);
            rig.ops().rmsnorm_forward({.out = out,
                                       .in = rig.upload(in, shape),
                                       .weight = rig.upload(weight, {size.width})},
                                      rig.stream());
            return std::vector<Values>{rig.download(out)};
          },
          {{alone.out, tolerance}});
    }
  }
}

TEST_CASE("rmsnorm forward may write the residual over its input") {
  const Shape shape{140, 33};
  const Values in = random_values(140 * 33, 1), delta = random_values(140 * 33, 2),
               weight = random_values(33, 3);
  const NormForward expected = forward(in, delta, weight);
  require_everywhere(
      [&](Rig& rig) {
        const Tensor stream = rig.upload(in, shape), out = rig.poisoned(shape),
                     rstd = rig.poisoned({140});
        rig.ops().rmsnorm_forward({.out = out,
                                   .residual_out = stream,
                                   .rstd = rstd,
                                   .in = stream,
                                   .delta = rig.upload(delta, shape),
                                   .weight = rig.upload(weight, {33})},
                                  rig.stream());
        return std::vector<Values>{rig.download(out), rig.download(stream)};
      },
      {{expected.out, {.of_largest = 1e-6}},
       {expected.residual, {.relative = 1e-7, .of_largest = 1e-7}}});
}

TEST_CASE("rmsnorm backward equals the gradient, accumulates, and makes the output again") {
  enum class Residual { kAbsent, kApart, kInPlace };
  for (const Size& size : kSizes) {
    for (Residual kind : {Residual::kAbsent, Residual::kApart, Residual::kInPlace}) {
      INFO(fmt::format("rows {} width {} residual {}", size.rows, size.width, int(kind)));
      const Shape shape{size.rows, size.width};
      const int64_t count = size.rows * size.width;
      const Values x = random_values(count, 1), weight = random_values(size.width, 2),
                   dy = random_values(count, 3);
      const Values residual = random_values(count, 4),
                   weight_gradient = random_values(size.width, 5);
      const NormForward forward_result = forward(x, {}, weight);
      const Gradients g = backward(x, weight, dy);
      require_everywhere(
          [&](Rig& rig) {
            const Tensor dw = rig.upload(weight_gradient, {size.width}), out = rig.poisoned(shape);
            Tensor dx = rig.poisoned(shape), dr;
            if (kind != Residual::kAbsent) dr = rig.upload(residual, shape);
            if (kind == Residual::kInPlace) dx = dr;
            rig.ops().rmsnorm_backward({.in_gradient = dx,
                                        .weight_gradient = dw,
                                        .out = out,
                                        .out_gradient = rig.upload(dy, shape),
                                        .residual_gradient = dr,
                                        .in = rig.upload(x, shape),
                                        .weight = rig.upload(weight, {size.width}),
                                        .rstd = rig.upload(forward_result.rstd, {size.rows})},
                                       rig.stream());
            return std::vector<Values>{rig.download(dx), rig.download(dw), rig.download(out)};
          },
          {{kind == Residual::kAbsent ? g.in : plus(g.in, residual),
            {.of_largest = 2e-6, .absolute = 1e-6}},
           {plus(g.weight, weight_gradient), {.of_largest = 1e-5}},
           {forward_result.out, {.of_largest = 1e-6}}});
    }
  }
}

TEST_CASE("rmsnorm benchmark", "[.benchmark]") {
  Rig rig(0);
  const int64_t rows = 4096, width = 512;
  const Shape shape{rows, width};
  const Tensor in = rig.upload(random_values(rows * width, 1), shape),
               delta = rig.upload(random_values(rows * width, 2), shape);
  const Tensor weight = rig.upload(random_values(width, 3), {width}),
               dw = rig.upload(Values(size_t(width)), {width});
  const Tensor out = rig.poisoned(shape), residual = rig.poisoned(shape),
               rstd = rig.poisoned({rows});
  const double bytes = 4.0 * double(rows * width);
  const std::string name = fmt::format("{}x{}", rows, width);
  run_benchmark(rig, {.name = "rmsnorm_forward", .shape = name, .bytes = 4 * bytes}, [&] {
    rig.ops().rmsnorm_forward({.out = out,
                               .residual_out = residual,
                               .rstd = rstd,
                               .in = in,
                               .delta = delta,
                               .weight = weight},
                              rig.stream());
  });
  run_benchmark(rig, {.name = "rmsnorm_backward", .shape = name, .bytes = 4 * bytes}, [&] {
    rig.ops().rmsnorm_backward({.in_gradient = out,
                                .weight_gradient = dw,
                                .out_gradient = delta,
                                .residual_gradient = in,
                                .in = residual,
                                .weight = weight,
                                .rstd = rstd},
                               rig.stream());
  });
}
