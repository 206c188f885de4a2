// Rounds that run while the nodes train on, without a network: who steps, who is counted and when a
// result is merged are drawn from a seed, and what must hold whatever is drawn is held against the
// numbers.
#include <algorithm>
#include <map>

#include "fixture.h"
#include "outer/codec.h"
#include "support/catch.h"

using namespace outer;
using namespace outer::testing;

namespace {

OuterConfig streaming_config(const std::string& codec, int64_t fragments = 1) {
  OuterConfig config;
  config.codec = codec;
  config.fragments = fragments;
  config.inner_steps = 8;
  config.overlap_steps = 2;
  config.overlap_steps_max = 4;
  config.contribution_norm_max = 0;
  return config;
}

const std::vector<int64_t> kStreamingUnits = {3000, 5000, 4100};

std::function<float(int64_t)> random_start(uint64_t seed) {
  return [random = base::Random(seed)](int64_t) mutable { return gaussian(random); };
}

// Small random steps on every parameter; returns their sum per element.
std::vector<double> train(TestNode& node, base::Random& random) {
  std::vector<double> moved;
  for (auto& unit : node.local.units) {
    for (float& value : unit) {
      const float before = value;
      value += 0.01f * gaussian(random);
      moved.push_back(double(value) - double(before));
    }
  }
  return moved;
}

// Elements of all units in the order of the fragment (with one fragment, that of the units).
std::vector<double> difference(const TestNode& node) {
  const std::vector<float> local = node.local.all();
  const auto outer = node.state->outer_parameters(0);
  std::vector<double> difference;
  for (size_t i = 0; i < local.size(); ++i)
    difference.push_back(double(local[i]) - double(outer[i]));
  return difference;
}

std::vector<float> decoded(const std::vector<net::Bytes>& payloads,
                           const std::vector<char>& counted, const std::string& codec) {
  std::vector<float> all;
  const auto decoder = make_codec(codec);
  const int64_t total = 12100;
  const int64_t chunk = chunk_elements(total);
  for (size_t c = 0; c < payloads.size(); ++c) {
    std::vector<float> values(size_t(std::min(chunk, total - int64_t(c) * chunk)));
    if (counted[c] != 0) {
      decoder->decode(std::span<const std::byte>(*payloads[c]).subspan(net::kContributionOffset),
                      values);
    }
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

std::vector<net::Bytes> frozen(OuterState& state) {
  std::vector<net::Bytes> payloads;
  for (int64_t chunk = 0; chunk < state.chunk_count(0); ++chunk)
    payloads.push_back(state.contribution(0, chunk));
  return payloads;
}

}  // namespace

// What a node did, and what of it was counted, is all that it is away from the outer parameters:
// nothing is lost, nothing counts twice.
TEST_CASE("streaming: local minus outer is what was trained and not yet counted",
          "[outer][streaming]") {
  const uint64_t seed = GENERATE(1, 2, 3);
  const std::string codec = GENERATE("fp32", "int8", "int4");
  INFO("seed " << seed << " " << codec);
  base::Random random(seed, 5);
  OuterConfig config = streaming_config(codec);
  const auto layout = make_layout(kStreamingUnits);
  std::vector<std::unique_ptr<TestNode>> nodes;
  std::vector<std::vector<double>> expected;
  for (int n = 0; n < 3; ++n) {
    nodes.push_back(std::make_unique<TestNode>(config, layout, random_start(seed)));
    expected.emplace_back(12100);
  }
  const auto step_all = [&] {
    for (size_t n = 0; n < nodes.size(); ++n) {
      const auto moved = train(*nodes[n], random);
      for (size_t i = 0; i < moved.size(); ++i) expected[n][i] += moved[i];
    }
  };
  const int64_t chunks = nodes[0]->state->chunk_count(0);
  for (uint64_t round = 1; round <= 12; ++round) {
    step_all();
    std::vector<std::vector<net::Bytes>> sent;
    for (auto& node : nodes) {
      REQUIRE(node->state->freeze(0));
      sent.push_back(frozen(*node->state));
    }
    step_all();
    // Each part is there or not, at least one in each chunk.
    std::vector<std::vector<char>> counted(nodes.size(), std::vector<char>(size_t(chunks)));
    net::Committed commit{.round = round, .step = 8 * round};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      std::vector<net::FragmentStore::Part> parts;
      for (size_t n = 0; n < nodes.size(); ++n) {
        if (random.below(5) == 0 && !(n + 1 == nodes.size() && parts.empty())) continue;
        counted[n][size_t(chunk)] = 1;
        parts.push_back({.peer = net::PeerId(n),
                         .weight_tokens = 100 + int64_t(n),
                         .bytes = sent[n][size_t(chunk)],
                         .offset = net::kContributionOffset});
      }
      commit.results.push_back(make_part(0, 1, nodes[0]->state->reduce(0, chunk, parts).encoded));
    }
    std::vector<size_t> unmerged = {0, 1, 2};
    std::vector<net::FragmentState> states;
    for (size_t n = 0; n < nodes.size(); ++n) {
      commit.contributed = true;
      commit.has_ours = counted[n];
      nodes[n]->state->step(commit);
      states.push_back(nodes[n]->state->state(0));
      REQUIRE(states[n] == states[0]);
    }
    while (!unmerged.empty()) {
      const size_t at = random.below(unmerged.size());
      const size_t n = unmerged[at];
      if (random.below(2) == 0) {
        step_all();
        continue;
      }
      nodes[n]->state->merge(0, Merge::kRebase);
      unmerged.erase(unmerged.begin() + int64_t(at));
      const auto taken = decoded(sent[n], counted[n], codec);
      for (size_t i = 0; i < taken.size(); ++i) expected[n][i] += double(taken[i]);
    }
    for (size_t n = 0; n < nodes.size(); ++n) {
      const auto found = difference(*nodes[n]);
      double worst = 0;
      for (size_t i = 0; i < found.size(); ++i)
        worst = std::max(worst, std::abs(found[i] - expected[n][i]));
      INFO("round " << round << " node " << n);
      REQUIRE(worst < 6e-5);
    }
  }
}

TEST_CASE("streaming: alone, with rate 1 and no momentum, the outer loop does nothing",
          "[outer][streaming]") {
  const std::string codec = GENERATE("fp32", "int8", "int4");
  INFO(codec);
  OuterConfig config = streaming_config(codec);
  config.learning_rate = 1;
  config.momentum = 0;
  const auto layout = make_layout(kStreamingUnits);
  TestNode node(config, layout, random_start(4)), plain(config, layout, random_start(4));
  base::Random random(9), same(9), draws(10);
  for (uint64_t round = 1; round <= 20; ++round) {
    const auto steps = [&](uint64_t count) {
      for (uint64_t i = 0; i < count; ++i) train(node, random), train(plain, same);
    };
    steps(1 + draws.below(3));
    net::Committed commit = exchange({node.state.get()}, 0, {1});
    commit.step = 8 * round;
    steps(draws.below(3));
    node.state->step(commit);
    steps(draws.below(3));
    node.state->merge(0, Merge::kRebase);
    const auto found = node.local.all(), wanted = plain.local.all();
    for (size_t i = 0; i < found.size(); ++i) {
      REQUIRE(std::abs(found[i] - wanted[i]) <=
              1e-6f * float(round) * std::max(1.0f, std::abs(wanted[i])));
    }
  }
}

TEST_CASE("streaming: overwrite and lerp are what they say, and rebase where we were not counted",
          "[outer][streaming]") {
  OuterConfig config = streaming_config("fp32");
  config.merge_local_share = 0.25;
  const auto layout = make_layout(kStreamingUnits);
  const Merge how = GENERATE(Merge::kOverwrite, Merge::kLerp, Merge::kReplace);
  TestNode node(config, layout, random_start(4));
  base::Random random(9);
  train(node, random);
  net::Committed commit = exchange({node.state.get()}, 0, {1});
  commit.step = 8;
  commit.has_ours[1] = 0;
  train(node, random);
  const std::vector<float> before = node.local.all();
  const auto old_outer = node.state->outer_parameters(0);
  const std::vector<float> old(old_outer.begin(), old_outer.end());
  node.state->step(commit);
  node.state->merge(0, how);
  const auto after = node.local.all();
  const auto outer = node.state->outer_parameters(0);
  const auto chunk = size_t(chunk_elements(12100));
  for (size_t i = 0; i < after.size(); ++i) {
    const float rebased = before[i] + (outer[i] - old[i]);
    const float wanted = how == Merge::kReplace     ? outer[i]
                         : i / chunk == 1           ? rebased
                         : how == Merge::kOverwrite ? outer[i]
                                                    : 0.25f * before[i] + 0.75f * outer[i];
    REQUIRE(std::abs(after[i] - wanted) < 2e-6f);
  }
}

TEST_CASE("streaming: results may travel in another codec than contributions",
          "[outer][streaming]") {
  OuterConfig config = streaming_config("fp32");
  config.result_codec = "int8";
  TestNode a(config, make_layout(kStreamingUnits), random_start(4)),
      b(config, make_layout(kStreamingUnits), random_start(4));
  base::Random random(9);
  train(a, random), train(b, random);
  net::Committed commit = exchange({a.state.get(), b.state.get()}, 0, {1, 1});
  commit.step = 8;
  const auto result = commit.results[0].encoded();
  REQUIRE(int64_t(result.size()) == make_codec("int8")->encoded_bytes(chunk_elements(12100)));
  REQUIRE(a.state->check_result(0, 0, result));
  REQUIRE(!a.state->check_contribution(0, 0, result));
  a.state->step(commit), b.state->step(commit);
  REQUIRE(a.state->state(0) == b.state->state(0));
}

TEST_CASE("streaming: the first rounds are warmed up", "[outer][streaming]") {
  OuterConfig config = streaming_config("fp32");
  config.learning_rate = 1;
  config.momentum = 0;
  config.warmup_rounds = 4;
  TestNode node(config, make_layout({100}), [](int64_t) { return 1.0f; });
  float outer = 1;
  for (uint64_t round = 1; round <= 6; ++round) {
    for (float& value : node.local.units[0]) value -= 0.25f;
    const float contribution = outer - node.local.units[0][0];
    net::Committed commit = exchange({node.state.get()}, 0, {1});
    commit.step = 8 * round;
    node.state->step(commit);
    outer -= std::min(1.0f, float(round) / 4) * contribution;
    REQUIRE(std::abs(node.state->outer_parameters(0)[0] - outer) < 1e-6f);
    node.state->merge(0, Merge::kRebase);
  }
}
