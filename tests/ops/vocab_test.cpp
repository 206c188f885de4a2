// Embedding and cross-entropy against their formulas in double.
#include <algorithm>
#include <fmt/format.h>

#include "ops/rig.h"

using namespace ops_test;

namespace {

struct Loss {
  Values loss, z_loss;
};

Loss cross_entropy(const Values& logits, const std::vector<int32_t>& targets, double z_weight) {
  Loss result;
  const size_t vocabulary = logits.size() / targets.size();
  for (size_t row = 0; row < targets.size(); ++row) {
    const double* x = logits.data() + row * vocabulary;
    const double max = *std::max_element(x, x + vocabulary);
    double sum = 0;
    for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(x[v] - max);
    const bool counted = targets[row] >= 0;
    result.loss.push_back(counted ? max + std::log(sum) - x[targets[row]] : 0);
    result.z_loss.push_back(counted ? z_weight * max * max : 0);
  }
  return result;
}

Values cross_entropy_backward(const Values& logits, const std::vector<int32_t>& targets,
                              double z_weight, double scale) {
  Values gradient(logits.size());
  const size_t vocabulary = logits.size() / targets.size();
  for (size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0) continue;
    const double* x = logits.data() + row * vocabulary;
    const double* max = std::max_element(x, x + vocabulary);  // The first of the largest.
    double sum = 0;
    for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(x[v] - *max);
    for (size_t v = 0; v < vocabulary; ++v) {
      double slope = std::exp(x[v] - *max) / sum;
      if (int32_t(v) == targets[row]) slope -= 1;
      if (x + v == max) slope += 2 * z_weight * *max;
      gradient[row * vocabulary + v] = scale * slope;
    }
  }
  return gradient;
}

struct Case {
  int64_t rows, vocabulary;
  double deviation;
  float z_weight;
};

// Every fourth target is not counted.
std::vector<int32_t> make_targets(const Case& c) {
  std::vector<int32_t> targets = random_integers(c.rows, 11, int32_t(c.vocabulary));
  for (size_t row = 1; row < targets.size(); row += 4) targets[row] = -1;
  return targets;
}

std::vector<Values> run_cross_entropy(Rig& rig, const Case& c, const Values& values,
                                      const std::vector<int32_t>& target_values,
                                      bool compute_gradient) {
  const Tensor logits = rig.upload(values, {c.rows, c.vocabulary});
  const Tensor loss = rig.poisoned({c.rows}), z_loss = rig.poisoned({c.rows});
  rig.ops().cross_entropy({.loss = loss,
                           .z_loss = z_loss,
                           .logits = logits,
                           .targets = rig.upload(target_values, {c.rows}),
                           .z_weight = c.z_weight,
                           .gradient_scale = 0.125f,
                           .compute_gradient = compute_gradient},
                          rig.stream());
  return {rig.download(loss), rig.download(z_loss), rig.download(logits)};
}

void require_cross_entropy(const Case& c, const Values& logits,
                           const std::vector<int32_t>& targets) {
  INFO(fmt::format("rows {} vocabulary {} deviation {} z_weight {}", c.rows, c.vocabulary,
                   c.deviation, c.z_weight));
  const Loss expected = cross_entropy(logits, targets, c.z_weight);
  const Values gradient = cross_entropy_backward(logits, targets, c.z_weight, 0.125);
  const Tolerance tolerance{.relative = 1e-6, .of_largest = 2e-6};
  require_everywhere(
      [&](Rig& rig) { return run_cross_entropy(rig, c, logits, targets, true); },
      {{expected.loss, tolerance}, {expected.z_loss, tolerance}, {gradient, tolerance}});
  require_everywhere([&](Rig& rig) { return run_cross_entropy(rig, c, logits, targets, false); },
                     {{expected.loss, tolerance}, {expected.z_loss, tolerance}, {logits, {}}});
}

}  // namespace

TEST_CASE("the reference gradient of cross-entropy agrees with central differences") {
  const Case c{5, 7, 2, 0.01f};
  const Values logits = random_values(c.rows * c.vocabulary, 1, c.deviation);
  const std::vector<int32_t> targets = make_targets(c);
  auto total = [&](const Values& x) {
    const Loss l = cross_entropy(x, targets, c.z_weight);
    double sum = 0;
    for (size_t row = 0; row < l.loss.size(); ++row) sum += l.loss[row] + l.z_loss[row];
    return Values{sum};
  };
  require_close(cross_entropy_backward(logits, targets, c.z_weight, 1),
                central_differences(total, logits, {1}), kDifferences);
}

TEST_CASE("cross-entropy equals the formula") {
  for (const Case& c :
       {Case{1, 1, 1, 2e-4f}, Case{9, 5, 1, 0}, Case{9, 5, 0, 2e-4f}, Case{6, 333, 3, 2e-4f},
        Case{6, 333, 1000, 1e-6f}, Case{130, 321, 1, 2e-4f}}) {
    require_cross_entropy(c, random_values(c.rows * c.vocabulary, 2, c.deviation), make_targets(c));
  }
}

TEST_CASE("the gradient of the largest logit goes to the first of equals") {
  const Case c{2, 19, 1, 0.5f};
  Values logits = random_values(c.rows * c.vocabulary, 3);
  logits[4] = logits[9] = logits[18] = 7;
  logits[19] = logits[20] = 7;
  require_cross_entropy(c, logits, {18, 5});
}

TEST_CASE("cross-entropy of a NaN is a NaN") {
  const Case c{1, 40, 1, 0};
  for (size_t at : {0, 17, 39}) {
    Values logits = random_values(40, 4);
    logits[at] = std::numeric_limits<double>::quiet_NaN();
    Rig rig(1);
    REQUIRE(std::isnan(run_cross_entropy(rig, c, logits, {3}, true)[0][0]));
  }
}

TEST_CASE("embedding copies rows, and its backward adds them up in order") {
  const int64_t sizes[][3] = {{1, 1, 1}, {37, 5, 7}, {400, 11, 150}};  // tokens, vocabulary, width
  for (const auto& [rows, vocabulary, width] : sizes) {
    INFO(fmt::format("tokens {} vocabulary {} width {}", rows, vocabulary, width));
    const std::vector<int32_t> tokens = random_integers(rows, 1, int32_t(vocabulary));
    const Values weight = random_values(vocabulary * width, 2), dy = random_values(rows * width, 3);
    const Values gradient_before = random_values(vocabulary * width, 4);
    Values out, gradient = gradient_before;
    for (size_t row = 0; row < tokens.size(); ++row) {
      for (size_t c = 0; c < size_t(width); ++c) {
        out.push_back(weight[size_t(tokens[row] * width) + c]);
        // In fp32, as the order of the additions is part of the contract.
        double& sum = gradient[size_t(tokens[row] * width) + c];
        sum = float(sum) + float(dy[row * size_t(width) + c]);
      }
    }
    require_everywhere(
        [&](Rig& rig) {
          const Tensor ids = rig.upload(tokens, {rows}), y = rig.poisoned({rows, width});
          const Tensor dw = rig.upload(gradient_before, {vocabulary, width});
          rig.ops().embedding_forward(
              {.out = y, .weight = rig.upload(weight, {vocabulary, width}), .tokens = ids},
              rig.stream());
          rig.ops().embedding_backward(
              {.weight_gradient = dw, .out_gradient = rig.upload(dy, {rows, width}), .tokens = ids},
              rig.stream());
          return std::vector<Values>{rig.download(y), rig.download(dw)};
        },
        {{out, {}}, {gradient, {}}});
  }
}

TEST_CASE("vocab benchmark", "[.benchmark]") {
  Rig rig(0);
  for (const Case& c : {Case{4096, 320, 1, 2e-4f}, Case{256, 128256, 1, 2e-4f}}) {
    const Tensor logits =
        rig.upload(random_values(c.rows * c.vocabulary, 1), {c.rows, c.vocabulary});
    const Tensor targets = rig.upload(make_targets(c), {c.rows}), loss = rig.poisoned({c.rows}),
                 z_loss = rig.poisoned({c.rows});
    run_benchmark(rig,
                  {.name = "cross_entropy",
                   .shape = fmt::format("{}x{}", c.rows, c.vocabulary),
                   .bytes = 8.0 * double(c.rows * c.vocabulary)},
                  [&] {
                    rig.ops().cross_entropy(
                        {.loss = loss, .z_loss = z_loss, .logits = logits, .targets = targets},
                        rig.stream());
                  });
  }
  const int64_t rows = 4096, width = 512, vocabulary = 32000;
  const Tensor tokens = rig.upload(random_integers(rows, 1, int32_t(vocabulary)), {rows});
  const Tensor weight = rig.upload(Values(size_t(vocabulary * width)), {vocabulary, width}),
               out = rig.poisoned({rows, width});
  const std::string shape = fmt::format("{} of {}x{}", rows, vocabulary, width);
  run_benchmark(
      rig, {.name = "embedding_forward", .shape = shape, .bytes = 8.0 * double(rows * width)}, [&] {
        rig.ops().embedding_forward({.out = out, .weight = weight, .tokens = tokens}, rig.stream());
      });
  run_benchmark(
      rig, {.name = "embedding_backward", .shape = shape, .bytes = 12.0 * double(rows * width)},
      [&] {
        rig.ops().embedding_backward(
            {.weight_gradient = weight, .out_gradient = out, .tokens = tokens}, rig.stream());
      });
}
