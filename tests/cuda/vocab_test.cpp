// Embedding and cross-entropy on CUDA against the CPU.
#include <fmt/format.h>
#include <numeric>

#include "cuda/pair.h"

using namespace cuda_test;

namespace {

// fp32 against fp32: sums in another order, and an exponential within a few units in the last
// place.
constexpr Tolerance kLoss{.relative = 2e-6, .absolute = 4e-6};
constexpr Tolerance kZLoss{.relative = 1e-6};
constexpr float kScale = 0.125f;
// Results are the CPU's, rounded once; a target's probability less 1 is the difference of what is
// rounded in fp32.
constexpr Tolerance kGradient{.relative = 1.01 * kBf16Rounding, .absolute = 4e-7 * kScale};

struct VocabCase {
  int64_t rows, vocabulary;
  double deviation = 1;
  float z_weight = 2e-4f;
};

// Every fourth target is not counted.
std::vector<int32_t> make_targets(const VocabCase& c) {
  std::vector<int32_t> targets = ops_test::random_integers(c.rows, 11, int32_t(c.vocabulary));
  for (size_t row = 1; row < targets.size(); row += 4) targets[row] = -1;
  return targets;
}

// loss, z_loss, logits.
std::vector<Values> run_cross_entropy(Side& side, const VocabCase& c, const Values& values,
                                      const std::vector<int32_t>& targets, bool compute_gradient) {
  const Tensor logits = side.compute(values, {c.rows, c.vocabulary});
  const Tensor loss = side.fp32_out({c.rows}), z_loss = side.fp32_out({c.rows});
  side.ops().cross_entropy({.loss = loss,
                            .z_loss = z_loss,
                            .logits = logits,
                            .targets = side.int32(targets, {c.rows}),
                            .z_weight = c.z_weight,
                            .gradient_scale = kScale,
                            .compute_gradient = compute_gradient},
                           side.stream());
  return {side.download(loss), side.download(z_loss), side.download(logits)};
}

void require_cross_entropy(const VocabCase& c, const Values& logits,
                           const std::vector<int32_t>& targets) {
  INFO(fmt::format("rows {} vocabulary {} deviation {} z_weight {}", c.rows, c.vocabulary,
                   c.deviation, c.z_weight));
  require_same(
      [&](Side& side) {
        std::vector<Values> results = run_cross_entropy(side, c, logits, targets, true);
        for (Values& values : run_cross_entropy(side, c, logits, targets, false))
          results.push_back(std::move(values));
        return results;
      },
      {kLoss, kZLoss, kGradient, kLoss, kZLoss, {}});
}

struct Embedding {
  int64_t vocabulary, width;
  std::vector<int32_t> tokens;
};

void require_embedding(const Embedding& e) {
  const auto rows = int64_t(e.tokens.size());
  INFO(fmt::format("tokens {} vocabulary {} width {}", rows, e.vocabulary, e.width));
  const Values weight = bf16_values(e.vocabulary * e.width, 2), dy = bf16_values(rows * e.width, 3);
  const Values gradient_before = ops_test::random_values(e.vocabulary * e.width, 4);
  require_same(
      [&](Side& side) {
        const Tensor ids = side.int32(e.tokens, {rows});
        const Tensor y = side.compute_out({rows, e.width}),
                     dw = side.fp32(gradient_before, {e.vocabulary, e.width});
        side.ops().embedding_forward(
            {.out = y, .weight = side.compute(weight, {e.vocabulary, e.width}), .tokens = ids},
            side.stream());
        side.ops().embedding_backward({.weight_gradient = dw,
                                       .out_gradient = side.compute(dy, {rows, e.width}),
                                       .tokens = ids},
                                      side.stream());
        return std::vector<Values>{side.download(y), side.download(dw)};
      },
      {{}, {}});  // The order of the additions is the contract's: the same bits.
}

std::vector<int32_t> rising(int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

}  // namespace

TEST_CASE("vocab: the embedding copies rows, and its backward adds them up in order") {
  using ops_test::random_integers;
  for (int64_t width : {1, 7, 8, 24, 150})
    require_embedding({11, width, random_integers(90, 1, 11)});
  // Two slices of columns, with packs and without; the second is small.
  require_embedding({3, 2056, random_integers(7, 2, 3)});
  require_embedding({3, 257, random_integers(7, 2, 3)});
}

TEST_CASE("vocab: the embedding of rows that lie between the boundaries") {
  const Values weight = bf16_values(3 * 8 + 1, 2), dy = bf16_values(5 * 8 + 1, 3),
               gradient_before = ops_test::random_values(3 * 8, 4);
  require_same(
      [&](Side& side) {
        const Tensor ids = side.int32({2, 0, 2, 1, 0}, {5});
        const Tensor y = side.compute_out({5 * 8 + 1}), dw = side.fp32(gradient_before, {3, 8});
        side.ops().embedding_forward({.out = y.slice(1, {5, 8}),
                                      .weight = side.compute(weight, {3 * 8 + 1}).slice(1, {3, 8}),
                                      .tokens = ids},
                                     side.stream());
        side.ops().embedding_backward(
            {.weight_gradient = dw,
             .out_gradient = side.compute(dy, {5 * 8 + 1}).slice(1, {5, 8}),
             .tokens = ids},
            side.stream());
        return std::vector<Values>{side.download(y.slice(1, {5, 8})), side.download(dw)};
      },
      {{}, {}});
}

TEST_CASE("vocab: the embedding's backward with equal, different and far repeated tokens") {
  require_embedding({5, 8, std::vector<int32_t>(300, 4)});
  require_embedding({40, 8, rising(40)});
  require_embedding({1, 3, {0}});
  // More positions than are compared at once: 4 tokens in all tiles, one at both ends only, one in
  // the second and the third tile only.
  std::vector<int32_t> tokens = ops_test::random_integers(2500, 5, 4);
  tokens.front() = tokens.back() = 4;
  tokens[1500] = tokens[2400] = 5;
  require_embedding({6, 8, tokens});
}

// Fewer logits than a pack, rows that begin everywhere between the boundaries, fewer and more
// logits than threads take at once.
TEST_CASE("vocab: cross-entropy equals the CPU's") {
  for (const VocabCase& c : {VocabCase{1, 1}, VocabCase{9, 5, 1, 0}, VocabCase{9, 5, 0},
                             VocabCase{4, 8}, VocabCase{20, 19}, VocabCase{6, 333, 3},
                             VocabCase{6, 1000}, VocabCase{3, 4097, 5}, VocabCase{3, 40'001}}) {
    require_cross_entropy(c, bf16_values(c.rows * c.vocabulary, 2, c.deviation), make_targets(c));
  }
}

TEST_CASE("vocab: cross-entropy of huge logits, and of some that are -infinity") {
  const VocabCase huge{6, 333, 1e4, 1e-9f};
  require_cross_entropy(huge, bf16_values(6 * 333, 3, 1e4), make_targets(huge));
  const VocabCase c{2, 45};
  Values logits = bf16_values(2 * 45, 4);
  // All that the first threads see, and single ones.
  for (size_t v = 0; v < 16; ++v) logits[v] = -std::numeric_limits<double>::infinity();
  logits[60] = logits[89] = -std::numeric_limits<double>::infinity();
  require_same(
      [&](Side& side) {
        return run_cross_entropy(side, c, logits, {20, 3}, true);
      },
      {kLoss, kZLoss, kGradient});
}

TEST_CASE("vocab: the gradient of the largest logit goes to the first of equals") {
  const VocabCase small{3, 19, 1, 0.5f};
  Values logits = bf16_values(3 * 19, 3);
  logits[4] = logits[9] = logits[18] = 7;
  logits[19] = logits[20] = 7;
  logits[45] = logits[46] = 7;
  // The target is the last of the equals, none of them, and the first.
  require_cross_entropy(small, logits, {18, 5, 7});

  // The first of the equals is with a later thread, in a later turn of the same one, in the tail.
  const VocabCase large{3, 33'001, 1, 0.5f};
  logits = bf16_values(3 * 33'001, 3);
  logits[5000] = logits[32'768 + 16] = 9;
  logits[33'001 + 80] = logits[33'001 + 80 + 8192] = logits[33'001 + 80 + 32'768] = 9;
  logits[3 * 33'001 - 1] = 9;
  require_cross_entropy(large, logits, {100, 80, -1});
  require_cross_entropy(large, logits, {5000, 8272, 33'000});
  // Below zero: -1 is smaller than what a thread without logits has, if that were 0.
  require_cross_entropy({2, 9, 1, 0.5f},
                        {-5, -3, -3, -4, -9, -8, -7, -6, -5,  //
                         -1, -1, -1, -1, -1, -1, -1, -1, -1},
                        {2, 0});
}

TEST_CASE("vocab: cross-entropy of a NaN is a NaN") {
  const VocabCase c{1, 40, 1, 0};
  require_same(
      [&](Side& side) {
        for (size_t at : {0, 17, 39}) {
          Values logits = bf16_values(40, 4);
          logits[at] = std::numeric_limits<double>::quiet_NaN();
          REQUIRE(std::isnan(run_cross_entropy(side, c, logits, {3}, true)[0][0]));
        }
        return std::vector<Values>{};
      },
      {});
}
