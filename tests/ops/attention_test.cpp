// Attention against the textbook formula in double: all scores of a position, softmax, weighted
// values.
#include <algorithm>
#include <fmt/format.h>

#include "ops/rig.h"

using namespace ops_test;

namespace {

struct Attention {
  int64_t B, T, H, K, D;
  std::vector<int32_t> document_start;

  int64_t qkv_stride() const { return (H + 2 * K) * D; }
  int64_t query(int64_t b, int64_t i, int64_t h) const {
    return (b * T + i) * qkv_stride() + h * D;
  }
  int64_t key(int64_t b, int64_t i, int64_t h) const {
    return (b * T + i) * qkv_stride() + (H + h / (H / K)) * D;
  }
  int64_t value(int64_t b, int64_t i, int64_t h) const { return key(b, i, h) + K * D; }
  int64_t out(int64_t b, int64_t i, int64_t h) const { return ((b * T + i) * H + h) * D; }
  int64_t first(int64_t b, int64_t i) const { return document_start[size_t(b * T + i)]; }
};

// Documents of random length, `mean` positions long in the mean; 0: one document per row.
Attention make_attention(int64_t B, int64_t T, int64_t H, int64_t K, int64_t D, int64_t mean) {
  Attention a{B, T, H, K, D, {}};
  const std::vector<int32_t> dice = random_integers(B * T, 7, int32_t(std::max<int64_t>(1, mean)));
  for (int64_t b = 0; b < B; ++b) {
    int32_t start = 0;
    for (int64_t i = 0; i < T; ++i) {
      if (mean > 0 && dice[size_t(b * T + i)] == 0) start = int32_t(i);
      a.document_start.push_back(start);
    }
  }
  return a;
}

double dot(const Values& x, int64_t at_x, const Values& y, int64_t at_y, int64_t count) {
  double sum = 0;
  for (int64_t d = 0; d < count; ++d) sum += x[size_t(at_x + d)] * y[size_t(at_y + d)];
  return sum;
}

void add_scaled(Values& x, int64_t at_x, double factor, const Values& y, int64_t at_y,
                int64_t count) {
  for (int64_t d = 0; d < count; ++d) x[size_t(at_x + d)] += factor * y[size_t(at_y + d)];
}

// Probabilities of the positions first(b, i) .. i, and the log of the sum they were divided by.
struct Softmax {
  Values p;
  double lse = 0;
};

Softmax softmax(const Attention& a, const Values& qkv, int64_t b, int64_t i, int64_t h) {
  Softmax s;
  for (int64_t j = a.first(b, i); j <= i; ++j) {
    s.p.push_back(dot(qkv, a.query(b, i, h), qkv, a.key(b, j, h), a.D) / std::sqrt(double(a.D)));
  }
  const double max = *std::max_element(s.p.begin(), s.p.end());
  double sum = 0;
  for (double& p : s.p) sum += p = std::exp(p - max);
  for (double& p : s.p) p /= sum;
  s.lse = max + std::log(sum);
  return s;
}

struct Forward {
  Values out, lse;
};

Forward forward(const Attention& a, const Values& qkv) {
  Forward f{Values(size_t(a.B * a.T * a.H * a.D)), Values(size_t(a.B * a.H * a.T))};
  for (int64_t b = 0; b < a.B; ++b) {
    for (int64_t h = 0; h < a.H; ++h) {
      for (int64_t i = 0; i < a.T; ++i) {
        const Softmax s = softmax(a, qkv, b, i, h);
        f.lse[size_t((b * a.H + h) * a.T + i)] = s.lse;
        for (int64_t j = a.first(b, i); j <= i; ++j) {
          add_scaled(f.out, a.out(b, i, h), s.p[size_t(j - a.first(b, i))], qkv, a.value(b, j, h),
                     a.D);
        }
      }
    }
  }
  return f;
}

Values backward(const Attention& a, const Values& qkv, const Values& out_gradient) {
  Values gradient(qkv.size());
  for (int64_t b = 0; b < a.B; ++b) {
    for (int64_t h = 0; h < a.H; ++h) {
      for (int64_t i = 0; i < a.T; ++i) {
        const Softmax s = softmax(a, qkv, b, i, h);
        const int64_t first = a.first(b, i), at_out = a.out(b, i, h);
        Values dp;
        double mean = 0;
        for (int64_t j = first; j <= i; ++j) {
          dp.push_back(dot(out_gradient, at_out, qkv, a.value(b, j, h), a.D));
          mean += s.p[size_t(j - first)] * dp.back();
        }
        for (int64_t j = first; j <= i; ++j) {
          const double p = s.p[size_t(j - first)];
          const double slope = p * (dp[size_t(j - first)] - mean) / std::sqrt(double(a.D));
          add_scaled(gradient, a.value(b, j, h), p, out_gradient, at_out, a.D);
          add_scaled(gradient, a.query(b, i, h), slope, qkv, a.key(b, j, h), a.D);
          add_scaled(gradient, a.key(b, j, h), slope, qkv, a.query(b, i, h), a.D);
        }
      }
    }
  }
  return gradient;
}

struct Tensors {
  Tensor qkv, out, lse, document_start, out_gradient, qkv_gradient;
};

Tensors make_tensors(Rig& rig, const Attention& a, const Values& qkv, const Values& out_gradient) {
  return {.qkv = rig.upload(qkv, {a.B * a.T, a.qkv_stride()}),
          .out = rig.poisoned({a.B * a.T, a.H * a.D}),
          .lse = rig.poisoned({a.B, a.H, a.T}),
          .document_start = rig.upload(a.document_start, {a.B * a.T}),
          .out_gradient = rig.upload(out_gradient, {a.B * a.T, a.H * a.D}),
          .qkv_gradient = rig.poisoned({a.B * a.T, a.qkv_stride()})};
}

void run_forward(Rig& rig, const Attention& a, const Tensors& t, bool with_lse) {
  rig.ops().attention_forward({.out = t.out,
                               .lse = with_lse ? t.lse : Tensor{},
                               .qkv = t.qkv,
                               .document_start = t.document_start,
                               .sequence_length = a.T,
                               .heads = a.H,
                               .kv_heads = a.K,
                               .head_size = a.D},
                              rig.stream());
}

void run_backward(Rig& rig, const Attention& a, const Tensors& t) {
  rig.ops().attention_backward({.qkv_gradient = t.qkv_gradient,
                                .out_gradient = t.out_gradient,
                                .out = t.out,
                                .lse = t.lse,
                                .qkv = t.qkv,
                                .document_start = t.document_start,
                                .sequence_length = a.T,
                                .heads = a.H,
                                .kv_heads = a.K,
                                .head_size = a.D},
                               rig.stream());
}

void require_attention(const Attention& a, double deviation, Tolerance tolerance) {
  INFO(fmt::format("B {} T {} H {} K {} D {} deviation {}", a.B, a.T, a.H, a.K, a.D, deviation));
  const Values qkv = random_values(a.B * a.T * a.qkv_stride(), 1, deviation);
  const Values out_gradient = random_values(a.B * a.T * a.H * a.D, 2);
  const Forward expected = forward(a, qkv);
  require_everywhere(
      [&](Rig& rig) {
        const Tensors t = make_tensors(rig, a, qkv, out_gradient);
        run_forward(rig, a, t, true);
        run_backward(rig, a, t);
        return std::vector<Values>{rig.download(t.out), rig.download(t.lse),
                                   rig.download(t.qkv_gradient)};
      },
      {{expected.out, tolerance},
       {expected.lse, tolerance},
       {backward(a, qkv, out_gradient), tolerance}});
}

}  // namespace

TEST_CASE("the reference gradient of attention agrees with central differences") {
  for (const Attention& a : {make_attention(2, 5, 4, 2, 3, 3), make_attention(1, 6, 3, 1, 2, 0)}) {
    const Values qkv = random_values(a.B * a.T * a.qkv_stride(), 3),
                 weights = random_values(a.B * a.T * a.H * a.D, 4);
    const Values differences =
        central_differences([&](const Values& x) { return forward(a, x).out; }, qkv, weights);
    require_close(backward(a, qkv, weights), differences, kDifferences);
  }
}

TEST_CASE("attention equals the textbook for shapes, groups and documents") {
  const Tolerance tolerance{.of_largest = 1e-5};
  require_attention(make_attention(1, 1, 1, 1, 2, 0), 1, tolerance);
  require_attention(make_attention(2, 7, 4, 2, 8, 3), 1, tolerance);
  require_attention(make_attention(2, 7, 4, 2, 8, 1), 1,
                    tolerance);  // Every position its own document.
  require_attention(make_attention(2, 33, 6, 2, 16, 0), 1, tolerance);
  require_attention(make_attention(1, 300, 2, 2, 20, 0), 1,
                    tolerance);  // Several blocks of queries.
  require_attention(make_attention(1, 300, 5, 1, 6, 40), 1,
                    tolerance);  // A group that does not divide the block.
  require_attention(make_attention(1, 1100, 3, 1, 4, 0), 1, tolerance);  // Several tiles of keys.
  require_attention(make_attention(1, 1100, 2, 1, 4, 300), 1,
                    tolerance);  // Documents across tiles.
}

TEST_CASE("attention of zeros and of large values") {
  const Attention a = make_attention(2, 65, 4, 2, 16, 20);
  require_attention(a, 0, {.of_largest = 1e-6});
  // Scores of some thousand: the softmax is all but a maximum, and most exponentials are 0. An
  // error of one ulp in a score of 1000 is 6e-5 in a probability.
  require_attention(a, 30, {.of_largest = 5e-4});
}

TEST_CASE("attention of evaluation gives the same bits without log-sum-exp") {
  const Attention a = make_attention(2, 40, 4, 2, 8, 10);
  const Values qkv = random_values(a.B * a.T * a.qkv_stride(), 5),
               out_gradient(size_t(a.B * a.T * a.H * a.D));
  Rig rig(2);
  const Tensors t = make_tensors(rig, a, qkv, out_gradient);
  run_forward(rig, a, t, true);
  const Values expected = rig.download(t.out);
  run_forward(rig, a, t, false);
  REQUIRE(rig.download(t.out) == expected);
}

TEST_CASE("attention benchmark", "[.benchmark]") {
  Rig rig(0);
  for (const Attention& a :
       {make_attention(8, 512, 8, 2, 64, 0), make_attention(8, 512, 8, 2, 64, 100),
        make_attention(8, 512, 8, 8, 64, 0), make_attention(1, 4096, 8, 2, 64, 0)}) {
    const Tensors t = make_tensors(rig, a, random_values(a.B * a.T * a.qkv_stride(), 1),
                                   random_values(a.B * a.T * a.H * a.D, 2));
    double pairs = 0;
    for (int64_t n = 0; n < a.B * a.T; ++n)
      pairs += double(n % a.T - a.document_start[size_t(n)] + 1);
    const double flop = 4 * pairs * double(a.H * a.D);  // Two products forward, five backward.
    const std::string shape =
        fmt::format("B{} T{} H{} K{} D{} pairs {}", a.B, a.T, a.H, a.K, a.D, pairs);
    run_benchmark(rig, {.name = "attention_forward", .shape = shape, .flop = flop},
                  [&] { run_forward(rig, a, t, true); });
    run_benchmark(rig, {.name = "attention_backward", .shape = shape, .flop = 2.5 * flop},
                  [&] { run_backward(rig, a, t); });
  }
}
