// What a node says of each contribution: its angle to the outer momentum, and what of the mean is
// its doing.
#include "outer/round_findings.h"

#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

double product(const Floats& a, const Floats& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

double tokens_in(const ChunkMean& found) {
  double tokens = 0;
  for (const PartEffect& part : found.effects.parts)
    tokens += part.reach > 0 ? double(part.weight_tokens) : 0;
  return tokens;
}

// Parts of one chunk each, one more turned against the momentum than the one before.
struct Scene {
  Scene() {
    for (int n = 0; n < 4; ++n) {
      Floats part = gaussian_values(count, uint64_t(n) + 1);
      for (size_t i = 0; i < part.size(); ++i) part[i] += float(2 - 2 * n) * momentum[i];
      parts.push_back(part);
    }
  }
  ChunkMean mean(const MeanRule& rule) const {
    const auto codec = make_codec("fp32");
    std::vector<net::FragmentStore::Part> encoded;
    for (size_t n = 0; n < parts.size(); ++n)
      encoded.push_back(make_part(net::PeerId(n), weights[n], encode(*codec, parts[n])));
    return mean_of(encoded, count, *codec, rule, [&](Piece piece, std::span<float> values) {
      std::copy_n(momentum.begin() + piece.first, values.size(), values.begin());
    });
  }

  static constexpr int64_t count = 2 * kPieceElements + 100;
  const Floats momentum = gaussian_values(count, 99);
  std::vector<Floats> parts;
  const std::vector<int64_t> weights = {100, 200, 300, 400};
};

}  // namespace

TEST_CASE("cosine and share of each part of a mean", "[outer][findings]") {
  const Scene scene;
  for (const MeanRule& rule : {MeanRule{}, MeanRule{.reach = {.norm_max = 1.2}},
                               MeanRule{.reach = {}, .trim_share = 0.25}}) {
    const ChunkMean found = scene.mean(rule);
    const Floats mean = decode(*make_codec("fp32"), found.mean.encoded, scene.momentum.size());
    const RoundFindings findings = findings_of({{3, found.effects}});
    REQUIRE(findings.summed_chunks == 1);
    REQUIRE(findings.mean_norm == Approx(norm(mean)));
    REQUIRE(findings.momentum_norm == Approx(norm(scene.momentum)));
    REQUIRE(findings.influences.size() == 4);
    double all = 0;
    for (size_t n = 0; n < 4; ++n) {
      const RoundFindings::Influence& influence = findings.influences[n];
      const Floats& part = scene.parts[n];
      REQUIRE(influence.peer == n);
      REQUIRE(influence.norm == Approx(norm(part)));
      REQUIRE(influence.cosine ==
              Approx(product(part, scene.momentum) / (norm(part) * norm(scene.momentum))));
      REQUIRE(influence.weight_share == Approx(double(scene.weights[n]) / 1000));
      if (rule.trim_share == 0) {
        const double weight = found.effects.parts[n].reach > 0 ? double(scene.weights[n]) : 0;
        const double factor = weight / tokens_in(found) * found.effects.parts[n].reach;
        REQUIRE(influence.share == Approx(factor * product(part, mean) / product(mean, mean)));
      }
      all += influence.share;
    }
    REQUIRE(all == Approx(1));
    // The bytes are the same without the figures.
    const auto codec = make_codec("fp32");
    std::vector<net::FragmentStore::Part> encoded;
    for (size_t n = 0; n < 4; ++n)
      encoded.push_back(
          make_part(net::PeerId(n), scene.weights[n], encode(*codec, scene.parts[n])));
    REQUIRE(mean_of(encoded, scene.count, *codec, rule).mean.encoded == found.mean.encoded);
  }
}

TEST_CASE("findings are the same whichever chunk was summed first", "[outer][findings]") {
  OuterConfig config;
  const shard::Layout layout = make_layout({9000, 40'000});
  const auto start = [](int64_t i) { return 0.01f * float(i % 11); };
  const auto found = [&](bool is_forward) {
    std::vector<std::unique_ptr<TestNode>> nodes;
    std::vector<OuterState*> states;
    for (int n = 0; n < 3; ++n) {
      nodes.push_back(std::make_unique<TestNode>(config, layout, start));
      states.push_back(nodes.back()->state.get());
    }
    const auto train = [&] {
      for (size_t n = 0; n < 3; ++n) {
        base::Random random(n + 1);
        for (auto& unit : nodes[n]->local.units) {
          for (float& value : unit) value += 0.01f * (1 + gaussian(random));
        }
      }
    };
    train();
    const net::Committed first = exchange(states, 0, {1, 1, 1});
    for (OuterState* state : states) apply(*state, first, Merge::kReplace);
    states[0]->take_findings(0);
    train();
    for (OuterState* state : states) state->freeze(0);
    const int64_t chunks = states[0]->chunk_count(0);
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t chunk = is_forward ? i : chunks - 1 - i;
      std::vector<net::FragmentStore::Part> parts;
      for (size_t n = 0; n < 3; ++n)
        parts.push_back({.peer = net::PeerId(n),
                         .weight_tokens = 1,
                         .bytes = states[n]->contribution(0, chunk),
                         .offset = net::kContributionOffset});
      states[0]->reduce(0, chunk, parts);
    }
    return states[0]->take_findings(0);
  };
  const RoundFindings forward = found(true), backward = found(false);
  REQUIRE(forward.influences.size() == 3);
  for (size_t n = 0; n < 3; ++n) {
    // All go where the run went before.
    REQUIRE(forward.influences[n].cosine > 0.3);
    REQUIRE(forward.influences[n].cosine == backward.influences[n].cosine);
    REQUIRE(forward.influences[n].share == backward.influences[n].share);
  }
  REQUIRE(forward.momentum_norm == backward.momentum_norm);
}

TEST_CASE("findings of absurd numbers are numbers", "[outer][findings]") {
  const float largest = std::numeric_limits<float>::max();
  ChunkEffects effects;
  effects.parts = {{.peer = 0, .weight_tokens = 0, .squares = 0, .momentum = 0, .mean = 0},
                   {.peer = 1, .squares = 1e300, .momentum = 1e300 * double(largest), .mean = 1}};
  effects.mean_squares = std::numeric_limits<double>::infinity();
  const RoundFindings findings = findings_of({{0, effects}, {1, {}}});
  REQUIRE(findings.mean_norm == 0);
  for (const auto& influence : findings.influences) {
    REQUIRE(influence.cosine == 0);
    REQUIRE(influence.share == 0);
    REQUIRE(influence.weight_share == 0);
  }
}

TEST_CASE("what is remarkable about a contribution", "[outer][findings]") {
  const auto is = [](double cosine, double share, double weight_share, int64_t parts) {
    return is_remarkable({.cosine = cosine, .share = share, .weight_share = weight_share}, parts);
  };
  REQUIRE(!is(0.3, 0.25, 0.25, 4));
  REQUIRE(is(-0.51, 0.25, 0.25, 4));
  REQUIRE(is(-0.51, 1, 1, 1));
  REQUIRE(!is(-0.49, 0.25, 0.25, 4));
  REQUIRE(is(0.3, 0.7, 0.25, 4));
  REQUIRE(!is(0.3, 0.7, 0.5, 3));  // It trained on most of the tokens.
  REQUIRE(is(0.3, -0.01, 0.25, 4));
  REQUIRE(!is(0, 1.1, 0.5, 2));
  REQUIRE(!is(0, -0.1, 0.5, 2));
}
