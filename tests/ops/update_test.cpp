// The norm of the gradient, clipping and the updates against their formulas in double.
#include <fmt/format.h>

#include "backend/quantization.h"
#include "base/math.h"
#include "ops/rig.h"

using namespace ops_test;

namespace {

struct AdamwState {
  Values parameter, m, v;
};

struct Settings {
  float learning_rate, weight_decay, gradient_scale;
};
constexpr float kBeta1 = 0.9f, kBeta2 = 0.95f, kAdamEpsilon = 1e-8f;

// Loshchilov and Hutter, algorithm 2, line by line.
void adamw(AdamwState& state, const Values& gradient, const Settings& s, int64_t step) {
  for (size_t i = 0; i < gradient.size(); ++i) {
    const double g = gradient[i] * s.gradient_scale;
    state.m[i] = kBeta1 * state.m[i] + (1 - double(kBeta1)) * g;
    state.v[i] = kBeta2 * state.v[i] + (1 - double(kBeta2)) * g * g;
    const double m_corrected = state.m[i] / (1 - std::pow(double(kBeta1), double(step)));
    const double v_corrected = state.v[i] / (1 - std::pow(double(kBeta2), double(step)));
    state.parameter[i] -= s.learning_rate * (m_corrected / (std::sqrt(v_corrected) + kAdamEpsilon) +
                                             s.weight_decay * state.parameter[i]);
  }
}

Values to_bfloat16_and_back(Rig& rig, const Tensor& parameter) {
  const Tensor narrow =
      rig.upload_raw(std::vector<uint16_t>(size_t(parameter.element_count())).data(),
                     DType::kBfloat16, parameter.shape);
  const Tensor wide = rig.poisoned(parameter.shape);
  rig.ops().cast({.out = narrow, .in = parameter}, rig.stream());
  rig.ops().cast({.out = wide, .in = narrow}, rig.stream());
  return rig.download(wide);
}

}  // namespace

TEST_CASE("sum_of_squares equals the sum, with the same bits for any number of threads") {
  for (int64_t count : {1, 7, 16384, 100'003}) {
    for (double deviation : {1.0, 0.0, 1e15}) {
      INFO(fmt::format("count {} deviation {}", count, deviation));
      const Values in = random_values(count, 1, deviation);
      double sum = 0;
      for (double x : in) sum += x * x;
      auto run = [&](Rig& rig) {
        const Tensor x = rig.upload(in, {count}), first = rig.poisoned({1}),
                     added = rig.upload(Values{sum}, {1});
        rig.ops().sum_of_squares({.out = first, .in = x}, rig.stream());
        rig.ops().sum_of_squares({.out = added, .in = x, .accumulate = true}, rig.stream());
        return std::vector<Values>{rig.download(first), rig.download(added)};
      };
      require_everywhere(run, {{{sum}, {.relative = 2e-7}}, {{2 * sum}, {.relative = 2e-7}}});
      Rig one(1), three(3);
      REQUIRE(run(one) == run(three));
    }
  }
}

TEST_CASE("sum equals the sum, also of what cancels") {
  for (int64_t count : {1, 7, 16384, 100'003}) {
    for (double deviation : {1.0, 0.0, 1e30}) {
      INFO(fmt::format("count {} deviation {}", count, deviation));
      const Values in = random_values(count, 1, deviation);
      double sum = 0, magnitude = 0;
      for (double x : in) {
        sum += x;
        magnitude += std::abs(x);
      }
      auto run = [&](Rig& rig) {
        const Tensor out = rig.poisoned({1});
        rig.ops().sum({.out = out, .in = rig.upload(in, {count})}, rig.stream());
        return std::vector<Values>{rig.download(out)};
      };
      // One rounding to fp32; before it, doubles added in another order.
      require_everywhere(run, {{{sum}, {.relative = 6e-8, .absolute = 1e-13 * magnitude}}});
      Rig one(1), three(3);
      REQUIRE(run(one) == run(three));
    }
  }
}

TEST_CASE("clip_scale shortens what is too long, and nothing else") {
  auto scale = [](const Values& sums, float norm_max) {
    Rig rig(1);
    const Tensor out = rig.poisoned({1});
    rig.ops().clip_scale({.scale = out,
                          .sums_of_squares = rig.upload(sums, {int64_t(sums.size())}),
                          .norm_max = norm_max},
                         rig.stream());
    return rig.download(out)[0];
  };
  REQUIRE(scale({0.25}, 1) == 1);
  REQUIRE(scale({0}, 1) == 1);
  REQUIRE(scale({16}, 1) == Approx(1 / (4 + 1e-6)).epsilon(1e-7));
  REQUIRE(scale({16}, 2.5f) == Approx(2.5 / (4 + 1e-6)).epsilon(1e-7));
  REQUIRE(scale({16}, 0) == 1);
  REQUIRE(scale({16}, -1) == 1);
  REQUIRE(scale({9, 0, 16}, 1) == Approx(1 / (5 + 1e-6)).epsilon(1e-7));
  REQUIRE(scale(Values(100, 0.01), 0.5f) == Approx(0.5 / (1 + 1e-6)).epsilon(1e-7));
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
    for (const float norm_max : {1.0f, 0.0f}) {
      REQUIRE(std::isnan(scale({bad}, norm_max)));
      REQUIRE(std::isnan(scale({1, bad, 1}, norm_max)));
    }
  }
}

TEST_CASE("adamw follows algorithm 2 over several steps") {
  const Settings all_settings[] = {{1e-3f, 0.1f, 1}, {1e-3f, 0, 0.3f}, {0.5f, 0.01f, 1}};
  for (int64_t count : {1, 13, 20'001}) {
    for (const Settings& s : all_settings) {
      for (double deviation : {1.0, 0.0, 1e-6, 1e10}) {
        INFO(fmt::format("count {} learning rate {} gradient deviation {}", count, s.learning_rate,
                         deviation));
        const Values start = random_values(count, 1), zeros(start.size());
        AdamwState expected{start, zeros, zeros};
        std::vector<Values> gradients;
        for (int64_t step = 1; step <= 3; ++step) {
          gradients.push_back(random_values(count, 100 + uint64_t(step), deviation));
          adamw(expected, gradients.back(), s, step);
        }
        require_everywhere(
            [&](Rig& rig) {
              const Tensor p = rig.upload(start, {count}), m = rig.upload(zeros, {count});
              const Tensor v = rig.upload(zeros, {count}), copy = rig.poisoned({count});
              const Tensor scale = rig.upload(Values{s.gradient_scale}, {1});
              for (int64_t step = 1; step <= 3; ++step) {
                rig.ops().adamw({.parameter = p,
                                 .gradient = rig.upload(gradients[size_t(step - 1)], {count}),
                                 .m = m,
                                 .v = v,
                                 .copy = copy,
                                 .gradient_scale = scale,
                                 .learning_rate = s.learning_rate,
                                 .beta1 = kBeta1,
                                 .beta2 = kBeta2,
                                 .epsilon = kAdamEpsilon,
                                 .weight_decay = s.weight_decay,
                                 .step = step},
                                rig.stream());
              }
              return std::vector<Values>{rig.download(p), rig.download(m), rig.download(v),
                                         rig.download(copy)};
            },
            {{expected.parameter, {.of_largest = 1e-6}},
             {expected.m, {.of_largest = 1e-6}},
             {expected.v, {.relative = 1e-6}},
             {expected.parameter, {.of_largest = 1e-6}}});
      }
    }
  }
}

TEST_CASE("sgd follows its formula") {
  for (int64_t count : {1, 13, 20'001}) {
    const Values start = random_values(count, 1), gradient = random_values(count, 2);
    Values expected = start;
    const double rate = 0.1f, decay = 0.01f, scale = 0.5f;
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] -= rate * (gradient[i] * scale + decay * expected[i]);
    require_everywhere(
        [&](Rig& rig) {
          const Tensor p = rig.upload(start, {count});
          rig.ops().sgd({.parameter = p,
                         .gradient = rig.upload(gradient, {count}),
                         .gradient_scale = rig.upload(Values{scale}, {1}),
                         .learning_rate = 0.1f,
                         .weight_decay = 0.01f},
                        rig.stream());
          return std::vector<Values>{rig.download(p)};
        },
        {{expected, {.of_largest = 2e-7}}});
  }
}

TEST_CASE("updates write the new parameters to a bf16 copy") {
  const int64_t count = 20'001;
  Rig rig(2);
  const Tensor p = rig.upload(random_values(count, 1), {count}),
               gradient = rig.upload(random_values(count, 2), {count});
  const Tensor m = rig.upload(Values(size_t(count)), {count}),
               v = rig.upload(Values(size_t(count)), {count});
  const Tensor scale = rig.upload(Values{1}, {1});
  const Tensor copy =
      rig.upload_raw(std::vector<uint16_t>(size_t(count)).data(), DType::kBfloat16, {count});
  const Tensor copy_as_float = rig.poisoned({count});
  auto require_copied = [&] {
    rig.ops().cast({.out = copy_as_float, .in = copy}, rig.stream());
    REQUIRE(rig.download(copy_as_float) == to_bfloat16_and_back(rig, p));
  };
  rig.ops().adamw({.parameter = p,
                   .gradient = gradient,
                   .m = m,
                   .v = v,
                   .copy = copy,
                   .gradient_scale = scale,
                   .learning_rate = 0.1f},
                  rig.stream());
  require_copied();
  rig.ops().sgd({.parameter = p,
                 .gradient = gradient,
                 .copy = copy,
                 .gradient_scale = scale,
                 .learning_rate = 0.1f},
                rig.stream());
  require_copied();
}

// --- What is common to all ways of keeping parameters and moments.

namespace {

struct Storage {
  DType parameter, moments;
};
constexpr Storage kStorages[] = {{DType::kFloat32, DType::kFloat32},
                                 {DType::kFloat32, DType::kUint8},
                                 {DType::kBfloat16, DType::kFloat32},
                                 {DType::kBfloat16, DType::kUint8}};

using Bytes = std::vector<uint8_t>;

Bytes download_bytes(Rig& rig, const Tensor& tensor) {
  Bytes bytes(size_t(tensor.byte_count()));
  rig.download_raw(bytes.data(), tensor);
  return bytes;
}

// An update's tensors, all of which have something in them.
struct Update {
  Update(Rig& rig, int64_t count, const Storage& storage) {
    const int64_t block_count = base::div_ceil(count, backend::kMomentBlock);
    args.gradient = rig.upload(random_values(count, 2), {count});
    args.gradient_scale = rig.upload(Values{0.5}, {1});
    args.learning_rate = 0.01f;
    args.weight_decay = 0.1f;
    args.step = 3;
    args.zero_gradient = true;
    args.rounding_seed = 17;
    Values squares = random_values(count, 3);
    for (double& x : squares) x = float(x * x);
    if (storage.moments == DType::kFloat32) {
      args.m = rig.upload(random_values(count, 4), {count});
      args.v = rig.upload(squares, {count});
    } else {
      Bytes codes(static_cast<size_t>(count));
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(17 + 29 * i);
      args.m = rig.upload_raw(codes.data(), DType::kUint8, {count});
      args.v = rig.upload_raw(codes.data(), DType::kUint8, {count});
      args.m_scale = rig.upload(random_values(block_count, 5), {block_count});
      args.v_scale = rig.upload(Values(size_t(block_count), 0.25), {block_count});
    }
    const Tensor start = rig.upload(random_values(count, 1), {count});
    args.parameter = start;
    if (storage.parameter == DType::kFloat32) {
      args.copy = rig.poisoned({count});
    } else {
      args.parameter = rig.upload_raw(Bytes(size_t(2 * count)).data(), DType::kBfloat16, {count});
      rig.ops().cast({.out = args.parameter, .in = start}, rig.stream());
    }
  }

  // Everything but the gradient.
  std::vector<Bytes> state(Rig& rig) const {
    std::vector<Bytes> all;
    for (const Tensor& tensor :
         {args.parameter, args.m, args.v, args.copy, args.m_scale, args.v_scale}) {
      if (tensor) all.push_back(download_bytes(rig, tensor));
    }
    return all;
  }

  backend::AdamwArgs args;
};

}  // namespace

TEST_CASE("a step whose gradient scale is NaN changes nothing but clears the gradient") {
  const Values nan = {std::numeric_limits<double>::quiet_NaN()};
  for (int64_t count : {1, 255, 40'001}) {
    for (const Storage& storage : kStorages) {
      INFO(fmt::format("count {} dtypes {} {}", count, int(storage.parameter),
                       int(storage.moments)));
      Rig rig(2);
      Update update(rig, count, storage);
      update.args.gradient_scale = rig.upload(nan, {1});
      const auto state = update.state(rig);
      const Bytes gradient = download_bytes(rig, update.args.gradient);
      update.args.zero_gradient = false;
      rig.ops().adamw(update.args, rig.stream());
      REQUIRE(update.state(rig) == state);
      REQUIRE(download_bytes(rig, update.args.gradient) == gradient);
      update.args.zero_gradient = true;
      rig.ops().adamw(update.args, rig.stream());
      REQUIRE(update.state(rig) == state);
      REQUIRE(download_bytes(rig, update.args.gradient) == Bytes(gradient.size()));
    }
  }
}

TEST_CASE("adamw gives the same bits for any number of threads, and may clear the gradient") {
  for (int64_t count : {1, 255, 256, 257, 40'001}) {
    for (const Storage& storage : kStorages) {
      INFO(fmt::format("count {} dtypes {} {}", count, int(storage.parameter),
                       int(storage.moments)));
      const auto run = [&](int threads, bool zero_gradient) {
        Rig rig(threads);
        Update update(rig, count, storage);
        update.args.zero_gradient = zero_gradient;
        const Bytes before = download_bytes(rig, update.args.gradient);
        const auto state = update.state(rig);
        rig.ops().adamw(update.args, rig.stream());
        const Bytes after = download_bytes(rig, update.args.gradient);
        REQUIRE(after == (zero_gradient ? Bytes(before.size()) : before));
        REQUIRE(update.state(rig) != state);
        return update.state(rig);
      };
      const auto expected = run(1, false);
      REQUIRE(run(1, true) == expected);
      REQUIRE(run(3, true) == expected);
    }
  }
}

TEST_CASE("sgd skips and clears as adamw does") {
  const int64_t count = 20'001;
  for (const bool is_skipped : {false, true}) {
    for (const bool zero_gradient : {false, true}) {
      Rig rig(2);
      const Values start = random_values(count, 1), values = random_values(count, 2);
      const double scale = is_skipped ? std::numeric_limits<double>::quiet_NaN() : 0.5;
      const Tensor p = rig.upload(start, {count}), gradient = rig.upload(values, {count});
      const Tensor copy = rig.upload(start, {count});
      rig.ops().sgd({.parameter = p,
                     .gradient = gradient,
                     .copy = copy,
                     .gradient_scale = rig.upload(Values{scale}, {1}),
                     .learning_rate = 0.1f,
                     .weight_decay = 0.01f,
                     .zero_gradient = zero_gradient},
                    rig.stream());
      REQUIRE((rig.download(p) == start) == is_skipped);
      REQUIRE(rig.download(copy) == rig.download(p));
      REQUIRE(rig.download(gradient) == (zero_gradient ? Values(size_t(count)) : values));
    }
  }
}

TEST_CASE("update benchmark", "[.benchmark]") {
  Rig rig(0);
  const int64_t count = 16'000'000;
  const Values zeros(static_cast<size_t>(count), 0.0);
  const Tensor p = rig.upload(zeros, {count}), gradient = rig.upload(zeros, {count}),
               m = rig.upload(zeros, {count});
  const Tensor v = rig.upload(zeros, {count}), scale = rig.upload(Values{1}, {1}),
               sum = rig.poisoned({1});
  const std::string shape = fmt::format("{}", count);
  run_benchmark(rig, {.name = "adamw", .shape = shape, .bytes = 28.0 * double(count)}, [&] {
    rig.ops().adamw({.parameter = p,
                     .gradient = gradient,
                     .m = m,
                     .v = v,
                     .gradient_scale = scale,
                     .learning_rate = 1e-3f},
                    rig.stream());
  });
  run_benchmark(rig, {.name = "sum_of_squares", .shape = shape, .bytes = 4.0 * double(count)},
                [&] { rig.ops().sum_of_squares({.out = sum, .in = gradient}, rig.stream()); });
}
