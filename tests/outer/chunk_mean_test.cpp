// One node's numbers must not be the end of the others' run.
#include "outer/chunk_mean.h"

#include <tuple>

#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

using Factors = std::vector<double>;

const std::vector<int64_t> kMeanUnits = {100, 20'000, 3001};  // The embedding is the first.
constexpr int kHonest = 3;
constexpr float kStepSize = 0.01f;

OuterConfig mean_config(const std::string& codec) {
  OuterConfig config;
  config.codec = codec;
  return config;
}

float start_value(int64_t element) {
  return 0.05f * std::sin(float(element));
}

// Honest nodes that go a similar way, and the bytes of one that does not.
struct Swarm {
  explicit Swarm(const std::string& codec, int honest = kHonest) {
    const shard::Layout layout = make_layout(kMeanUnits);
    for (int n = 0; n < honest; ++n) {
      nodes.push_back(std::make_unique<TestNode>(mean_config(codec), layout, start_value));
      base::Random random(uint64_t(n) + 1);
      for (auto& unit : nodes.back()->local.units) {
        for (float& value : unit) value += kStepSize * (1 + gaussian(random));
      }
    }
  }
  OuterState& state(size_t n) { return *nodes[n]->state; }

  // The round that node 0 sums, with `lie` as one more node's part of a chunk.
  net::Committed round(const std::function<std::vector<std::byte>(int64_t chunk)>& lie) {
    net::Committed commit{.fragment = 0, .round = 1, .step = 100, .contributed = true};
    for (int64_t chunk = 0; chunk < state(0).chunk_count(0); ++chunk) {
      std::vector<net::FragmentStore::Part> parts;
      for (size_t n = 0; n < nodes.size(); ++n)
        parts.push_back(make_part(net::PeerId(n), 100, encoded_contribution(state(n), 0, chunk)));
      if (lie) parts.push_back(make_part(net::PeerId(nodes.size()), 100, lie(chunk)));
      for (const auto& part : parts)
        REQUIRE(state(0).check_contribution(0, chunk, part.encoded()).ok());
      net::FragmentStore::Mean mean = state(0).reduce(0, chunk, parts);
      REQUIRE(state(0).check_contribution(0, chunk, mean.encoded).ok());
      left_out.push_back(mean.left_out);
      commit.results.push_back(make_part(0, 100, std::move(mean.encoded)));
    }
    return commit;
  }
  void apply(const net::Committed& commit) {
    for (auto& node : nodes) testing::apply(*node->state, commit, Merge::kReplace);
    for (size_t n = 1; n < nodes.size(); ++n) REQUIRE(state(n).states() == state(0).states());
  }
  double moved() {
    double squares = 0;
    const auto parameters = state(0).outer_parameters(0);
    for (size_t i = 0; i < parameters.size(); ++i)
      squares += std::pow(double(parameters[i]) - double(start_value(int64_t(i))), 2);
    return std::sqrt(squares / double(parameters.size()));
  }
  // Every code is noise, every scale is `scale`.
  std::vector<std::byte> noise(int64_t chunk, float scale) {
    std::vector<std::byte> bytes = encoded_contribution(state(0), 0, chunk);
    const size_t scales = (bytes.size() + 515) / 516;
    base::Random random(uint64_t(chunk) + 77);
    for (std::byte& byte : bytes) byte = std::byte(int8_t(int(random.below(255)) - 127));
    for (size_t i = 0; i < scales; ++i) std::memcpy(bytes.data() + 4 * i, &scale, 4);
    return bytes;
  }

  std::vector<std::unique_ptr<TestNode>> nodes;
  std::vector<std::vector<net::PeerId>> left_out;
};

// The definition: numbers times their shares, added up in fp32 in the order of the parts.
Floats weighted_sum(const std::vector<net::FragmentStore::Part>& parts, const ChunkMean& found,
                    const Codec& codec, int64_t count) {
  int64_t total = 0;
  for (size_t i = 0; i < parts.size(); ++i)
    total += found.effects.parts[i].reach > 0 ? parts[i].weight_tokens : 0;
  const double even = 1.0 / double(parts.size() - found.mean.left_out.size());
  Floats sum(static_cast<size_t>(count));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (found.effects.parts[i].reach == 0) continue;
    const double share = total > 0 ? double(parts[i].weight_tokens) / double(total) : even;
    const auto factor = float(share * found.effects.parts[i].reach);
    const Floats values = decode(codec, *parts[i].bytes, size_t(count));
    for (size_t k = 0; k < sum.size(); ++k) {
      const volatile float product = factor * values[k];
      sum[k] = sum[k] + product;
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("the bytes of a mean are those of the sum of products", "[outer]") {
  const int64_t count = 1000;
  const MeanRule rule{.reach = {.norm_max = 2}};
  for (const char* name : {"fp32", "int8", "int4", "lut2"}) {
    for (const std::vector<int64_t>& weights :
         {std::vector<int64_t>{100, 7, 3000, 41, 100}, std::vector<int64_t>(5, 0)}) {
      const auto codec = make_codec(name);
      std::vector<net::FragmentStore::Part> parts;
      for (size_t n = 0; n < weights.size(); ++n) {
        Floats values = gaussian_values(count, n);
        // One that is shortened, and one that is left out.
        for (float& value : values) value *= n == 3 ? 3.0f : n == 4 ? 9.0f : 1.0f;
        parts.push_back(make_part(net::PeerId(n), weights[n], encode(*codec, values)));
      }
      const ChunkMean found = mean_of(parts, count, *codec, rule);
      REQUIRE(found.mean.left_out == std::vector<net::PeerId>{4});
      REQUIRE(found.effects.parts[3].reach < 1);
      const Floats sum = weighted_sum(parts, found, *codec, count);
      REQUIRE(found.mean.encoded == encode(*codec, sum));

      // In another codec than the parts.
      const auto int4 = make_codec("int4");
      REQUIRE(mean_of(parts, count, {*codec, *int4}, rule).mean.encoded == encode(*int4, sum));
    }
  }
}

// Two of the parts come as their mean, which has the weight of both.
TEST_CASE("a mean of a subtotal and a part is that of all parts", "[outer]") {
  const int64_t count = 5000;
  const MeanRule rule{.reach = {.norm_max = 10}};
  for (const auto& [contribution, result, tolerance] :
       {std::tuple("fp32", "fp32", 1e-6), std::tuple("int8", "int8", 0.02),
        std::tuple("int8", "fp32", 0.01), std::tuple("int4", "int8", 0.2)}) {
    INFO(contribution << " " << result);
    const auto codec = make_codec(contribution), result_codec = make_codec(result);
    const CodecPair codecs{*codec, *result_codec};
    const int64_t weights[] = {100, 300, 50};
    std::vector<net::FragmentStore::Part> parts;
    Floats exact(static_cast<size_t>(count));
    for (size_t n = 0; n < 3; ++n) {
      const Floats values = gaussian_values(count, n);
      for (size_t i = 0; i < values.size(); ++i) exact[i] += values[i] * float(weights[n]) / 450.0f;
      parts.push_back(make_part(net::PeerId(n), weights[n], encode(*codec, values)));
    }
    auto subtotal =
        make_part(1, 350, mean_of(std::span(parts).subspan(1), count, codecs, rule).mean.encoded);
    subtotal.is_subtotal = true;
    const ChunkMean found = mean_of(std::vector{parts[0], subtotal}, count, codecs, rule);
    REQUIRE(found.effects.parts[1].is_subtotal);
    REQUIRE(!found.effects.parts[0].is_subtotal);
    const Floats decoded = decode(*result_codec, found.mean.encoded, size_t(count));
    for (size_t i = 0; i < exact.size(); ++i)
      REQUIRE(std::abs(decoded[i] - exact[i]) < float(4 * tolerance));
  }
}

TEST_CASE("parts are held against the median of their norms", "[outer][reach]") {
  const ReachRule rule{.norm_max = 10};
  const auto factors = [&](const std::vector<double>& norms) {
    std::vector<PartLength> parts;
    for (const double norm : norms) parts.push_back({.norm = norm, .weight_tokens = 7});
    return rule.factors(parts);
  };
  REQUIRE(factors({1, 2, 3, 1.5}) == Factors{1, 1, 1, 1});
  REQUIRE(factors({1, 2, 20}) == Factors{1, 1, 1});
  REQUIRE(factors({1, 40, 2}) == Factors{1, 0.5, 1});
  REQUIRE(factors({200, 1, 2}) == Factors{0.1, 1, 1});
  REQUIRE(factors({201, 1, 2}) == Factors{0, 1, 1});
  REQUIRE(factors({1e300, 1, 1e-300, 1}) == Factors{0, 1, 1, 1});
  // As many liars as others: the lower median is an honest one's.
  REQUIRE(factors({1e9, 1, 1e9, 1}) == Factors{0, 1, 0, 1});
  // No median.
  REQUIRE(factors({1}) == Factors{1});
  REQUIRE(factors({1, 1e30}) == Factors{1, 1});
  // Who did not move says nothing.
  REQUIRE(factors({0, 0, 0, 5}) == Factors{1, 1, 1, 1});
  REQUIRE(factors({0, 1, 1, 40, 0, 0}) == Factors{1, 1, 1, 0.25, 1, 1});
  REQUIRE(ReachRule{}.factors(std::vector<PartLength>(5, {.norm = 1})) == Factors{1, 1, 1, 1, 1});
  const std::vector<PartLength> uneven = {{.norm = 1}, {.norm = 1}, {.norm = 1e30}};
  REQUIRE(ReachRule{}.factors(uneven) == Factors{1, 1, 1});
}

TEST_CASE("who trained on more may have gone farther, and nothing below the floor is judged",
          "[outer][reach]") {
  const auto factors = [](const ReachRule& rule, int64_t weight, double norm) {
    const std::vector<PartLength> parts = {{1, 10}, {1, 10}, {norm, weight}};
    return rule.factors(parts)[2];
  };
  const ReachRule rule{.norm_max = 10};
  REQUIRE(factors(rule, 10, 20) == 0.5);
  REQUIRE(factors(rule, 1, 20) == 0.5);  // Fewer tokens do not make it shorter.
  REQUIRE(factors(rule, 50, 50) == 1);
  REQUIRE(factors(rule, 1000, 100) == 1);  // A newcomer is no measure for a whole round.
  REQUIRE(factors(rule, int64_t{1} << 56, 200) == 0.5);
  REQUIRE(factors(rule, int64_t{1} << 56, 1001) == 0);
  const ReachRule with_floor{.norm_max = 10, .norm_floor = 40};
  REQUIRE(factors(with_floor, 10, 40) == 1);
  REQUIRE(factors(with_floor, 10, 80) == 0.5);
  REQUIRE(factors(with_floor, 10, 401) == 0);
}

TEST_CASE("one node's absurd numbers leave the mean as it is without them", "[outer][reach]") {
  Swarm honest("int8");
  honest.apply(honest.round({}));
  REQUIRE(honest.state(0).take_findings(0).outliers.empty());
  for (const float scale : {2.6e36f, 1.0f, 0.01f}) {
    INFO("scale " << scale);
    Swarm swarm("int8");
    swarm.apply(swarm.round([&](int64_t chunk) { return swarm.noise(chunk, scale); }));
    const RoundFindings findings = swarm.state(0).take_findings(0);
    REQUIRE(findings.refused_chunks == 0);
    REQUIRE(findings.outliers.size() == 1);
    const auto& outlier = findings.outliers.front();
    REQUIRE(outlier.peer == kHonest);
    REQUIRE(outlier.shortened_chunks + outlier.left_out_chunks == swarm.state(0).chunk_count(0));
    if (scale >= 1) {
      REQUIRE(outlier.shortened_chunks == 0);
      for (const auto& peers : swarm.left_out) REQUIRE(peers == std::vector<net::PeerId>{kHonest});
      REQUIRE(swarm.state(0).states() == honest.state(0).states());
    } else {
      // Shortened to ten times the others' length, of which a quarter is in the mean.
      REQUIRE(swarm.moved() < 4 * honest.moved());
      REQUIRE(swarm.left_out.front().empty());
    }
    REQUIRE(swarm.state(0).take_findings(0).outliers.empty());  // Once.
  }
}

TEST_CASE("in the embedding a contribution may be as long as the parameters", "[outer][reach]") {
  // Only one node saw the tokens of these rows.
  const shard::Layout layout = make_layout({9000, 9000, 100});
  std::vector<net::FragmentStore::Part> embedding, block;
  TestNode owner(mean_config("fp32"), layout, start_value);
  for (int n = 0; n < kHonest; ++n) {
    TestNode node(mean_config("fp32"), layout, start_value);
    const float step = n == 0 ? 0.03f : 1e-5f;
    for (auto& unit : node.local.units) {
      for (float& value : unit) value += step;
    }
    embedding.push_back(make_part(net::PeerId(n), 1, encoded_contribution(*node.state, 0, 0)));
    block.push_back(make_part(net::PeerId(n), 1, encoded_contribution(*node.state, 0, 2)));
  }
  REQUIRE(owner.state->reduce(0, 0, embedding).left_out.empty());
  REQUIRE(owner.state->take_findings(0).outliers.empty());
  REQUIRE(owner.state->reduce(0, 2, block).left_out == std::vector<net::PeerId>{0});
  REQUIRE(owner.state->take_findings(0).outliers.front().left_out_chunks == 1);
}

TEST_CASE("a mean that would ruin the parameters is refused by all alike", "[outer][reach]") {
  const bool has_median = GENERATE(true, false);
  for (const float scale : {2.6e36f, 1.0f}) {
    Swarm swarm("int8", has_median ? kHonest : 1);
    // With a median, whoever sums the chunk is the liar; without one, any node may be it.
    net::Committed commit =
        swarm.round(has_median ? std::function<std::vector<std::byte>(int64_t)>{}
                               : [&](int64_t chunk) { return swarm.noise(chunk, scale); });
    if (has_median) commit.results[1] = make_part(2, 100, swarm.noise(1, scale));
    const int64_t refused = has_median ? 1 : swarm.state(0).chunk_count(0);
    const std::vector<float> before(swarm.state(0).outer_parameters(0).begin(),
                                    swarm.state(0).outer_parameters(0).end());
    const std::vector<float> progress = swarm.nodes[0]->local.all();
    if (!has_median) swarm.nodes[0]->local.units[1][7] = NAN;
    swarm.apply(commit);
    for (size_t n = 0; n < swarm.nodes.size(); ++n)
      REQUIRE(swarm.state(n).take_findings(0).refused_chunks == refused);
    REQUIRE(swarm.moved() < 10 * kStepSize);
    // The second chunk stays as it was, with the node's own progress beside it.
    for (size_t i = 8192; i < 2 * 8192; ++i) {
      REQUIRE(swarm.state(0).outer_parameters(0)[i] == before[i]);
      REQUIRE(swarm.state(0).outer_momentum(0)[i] == 0);
      REQUIRE(swarm.nodes[0]->local.all()[i] == progress[i]);
    }
    REQUIRE(swarm.state(0).local_is_finite(0));
  }
}

TEST_CASE("a step after which a number is not finite is refused", "[outer][reach]") {
  OuterConfig config = mean_config("fp32");
  config.contribution_norm_max = 0;
  // All of them, or the last one only.
  const size_t first = GENERATE(size_t{0}, size_t{7999});
  TestNode node(config, make_layout({8000}), start_value);
  const auto outer = node.state->outer_parameters(0);
  const std::vector<float> before(outer.begin(), outer.end());
  std::vector<float> huge(8000, 0.25f);
  std::fill(huge.begin() + std::ptrdiff_t(first), huge.end(), 3e38f);
  const auto bytes = std::as_bytes(std::span(huge));
  net::Committed commit{.fragment = 0, .round = 1, .step = 100, .contributed = true};
  commit.results.push_back(make_part(0, 1, {bytes.begin(), bytes.end()}));
  apply(*node.state, commit, Merge::kReplace);
  REQUIRE(std::ranges::equal(outer, before));
  REQUIRE(node.state->take_findings(0).refused_chunks == 1);
}
