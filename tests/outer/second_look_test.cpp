// What it takes to hold owners and contributors to what they published: contributions that are
// bound before anybody sees them, and sums that come out the same when somebody else makes them
// again.
#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

constexpr float kStep = 0.01f;

OuterConfig make_config(const std::string& mean) {
  OuterConfig config;
  config.mean = mean;
  return config;
}

// Every parameter moves by about `size`.
void train(TestNode& node, uint64_t seed, float size) {
  base::Random random(seed);
  for (auto& unit : node.local.units) {
    for (float& value : unit) value += size * gaussian(random);
  }
}

}  // namespace

TEST_CASE("a sum that is made again is the same before and after its round is applied", "[outer]") {
  const OuterConfig config = make_config(GENERATE("mean", "clipped", "trimmed"));
  const shard::Layout layout = make_layout({9000, 20'000});
  // So little that the floor of the embedding decides what is shortened there.
  const auto start = [](int64_t i) { return 2e-3f * float(i % 5); };
  std::vector<std::unique_ptr<TestNode>> nodes;
  for (int n = 0; n < 4; ++n) {
    nodes.push_back(std::make_unique<TestNode>(config, layout, start));
    train(*nodes.back(), uint64_t(n) + 1, n == 3 ? 5 * kStep : 1e-3f * kStep);
    nodes.back()->state->freeze(0);
  }
  const auto parts = [&](int64_t chunk) {
    std::vector<net::FragmentStore::Part> parts;
    for (size_t n = 0; n < 4; ++n) {
      parts.push_back({.peer = net::PeerId(n),
                       .weight_tokens = 10,
                       .bytes = nodes[n]->state->contribution(0, chunk),
                       .offset = net::kContributionOffset});
    }
    return parts;
  };
  OuterState& owner = *nodes[0]->state;
  OuterState& verifier = *nodes[1]->state;
  net::Committed commit{.fragment = 0, .round = 1, .step = 100, .contributed = true};
  std::vector<std::vector<net::FragmentStore::Part>> all;
  std::vector<net::FragmentStore::Mean> means;
  for (int64_t chunk = 0; chunk < owner.chunk_count(0); ++chunk) {
    all.push_back(parts(chunk));
    means.push_back(owner.reduce(0, chunk, all.back()));
    commit.results.push_back(make_part(0, 40, means.back().encoded));
    commit.has_ours.push_back(1);
  }
  REQUIRE(owner.take_findings(0).outliers.empty() == (config.mean == "mean"));
  const auto require_same = [&] {
    for (size_t chunk = 0; chunk < all.size(); ++chunk) {
      const auto mean = verifier.repeat(0, 1, int64_t(chunk), all[chunk]);
      REQUIRE(mean.has_value());
      REQUIRE(mean->encoded == means[chunk].encoded);
      REQUIRE(mean->left_out == means[chunk].left_out);
    }
  };
  require_same();
  testing::apply(verifier, commit, Merge::kReplace);
  require_same();
  REQUIRE(verifier.take_findings(0).influences.empty());  // It is no sum of a round.
  const bool needs_state = config.mean != "mean";
  REQUIRE(verifier.repeat(0, 3, 0, all[0]).has_value() == !needs_state);
  // A state that came from elsewhere has no one before it.
  verifier.begin_replace(false);
  REQUIRE(verifier.repeat(0, 1, 0, all[0]).has_value() == !needs_state);
  for (int64_t block = 0; block < verifier.block_count(0); ++block)
    REQUIRE(verifier.write_block(0, block, owner.read_block(0, block)->bytes).ok());
  testing::apply(owner, commit, Merge::kReplace);
  for (int64_t block = 0; block < verifier.block_count(0); ++block)
    REQUIRE(verifier.write_block(0, block, owner.read_block(0, block)->bytes).ok());
  REQUIRE(verifier.end_replace(owner.states()).ok());
  REQUIRE(verifier.repeat(0, 1, 0, all[0]).has_value() == !needs_state);
}

TEST_CASE("what is frozen is bound by its root, and so is what a checkpoint had",
          "[outer][state]") {
  const shard::Layout layout = make_layout({100, 20'000, 3001});
  TestNode node(make_config("clipped"), layout);
  OuterState& state = *node.state;
  REQUIRE(state.contribution_root(0).is_zero());
  train(node, 1, kStep);
  REQUIRE(state.freeze(0));
  const auto require_bound = [&](OuterState& found) {
    std::vector<base::Digest> digests;
    std::vector<std::vector<std::byte>> payloads;
    for (int64_t chunk = 0; chunk < found.chunk_count(0); ++chunk) {
      payloads.push_back(*found.contribution(0, chunk));
      digests.push_back(net::contribution_digest(payloads.back()));
    }
    const std::vector<std::vector<std::byte>> before = payloads;
    REQUIRE(net::seal_contributions(payloads, digests) == found.contribution_root(0));
    REQUIRE(payloads == before);
  };
  require_bound(state);
  TestNode restored(make_config("clipped"), layout);
  restored.state->restore_frozen(0, state.frozen(0));
  REQUIRE(restored.state->contribution_root(0) == state.contribution_root(0));
  require_bound(*restored.state);
  node.local.units[0][0] = NAN;
  REQUIRE(!state.freeze(0));
  require_bound(state);
  state.thaw(0);
  REQUIRE(state.contribution_root(0).is_zero());
}
