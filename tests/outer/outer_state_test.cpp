// OuterState without a network: exchange() of the fixture plays the all-reduce. Exact cases use the
// fp32 codec and numbers that are sums of few powers of two.
#include "outer/outer_state.h"

#include <cfloat>
#include <chrono>
#include <cstdio>
#include <limits>
#include <thread>

#include "fixture.h"
#include "support/catch.h"

using namespace outer;
using namespace outer::testing;

namespace {

// Several chunks of 8192, units that end in the middle of chunks, a short last chunk.
const std::vector<int64_t> kUnits = {5000, 9001, 12'345, 7};

OuterConfig make_config(const std::string& codec, int64_t fragments = 1) {
  OuterConfig config;
  config.codec = codec;
  config.fragments = fragments;
  return config;
}

// Plain averaging: the new outer parameters are the mean of the local ones.
OuterConfig averaging_config() {
  OuterConfig config = make_config("fp32");
  config.learning_rate = 1;
  config.momentum = 0;
  return config;
}

std::function<float(int64_t)> random_start(uint64_t seed) {
  return [random = std::make_shared<base::Random>(seed)](int64_t) { return gaussian(*random); };
}

void take_steps(TestNode& node, uint64_t seed, float size = 0.01f) {
  base::Random random(seed);
  for (auto& unit : node.local.units) {
    for (float& value : unit) value += size * gaussian(random);
  }
}

std::vector<float> copy(std::span<const float> values) {
  return {values.begin(), values.end()};
}

// Every block of every fragment, as the network would bring them.
void transfer(OuterState& donor, OuterState& receiver) {
  for (int64_t f = 0; f < donor.fragment_count(); ++f) {
    for (int64_t block = 0; block < donor.block_count(f); ++block) {
      const auto bytes = donor.read_block(f, block);
      REQUIRE(bytes.has_value());
      REQUIRE(bytes->version == donor.states()[size_t(f)].version);
      REQUIRE(receiver.write_block(f, block, bytes->bytes).ok());
    }
  }
}

}  // namespace

TEST_CASE("a new state has the local parameters and no momentum", "[outer][state]") {
  TestNode node(make_config("int8", 2), make_layout(kUnits), random_start(1));
  for (int64_t f = 0; f < 2; ++f) {
    std::vector<float> expected;
    for (const int64_t unit : node.state->fragment(f).units) {
      const auto& values = node.local.units[size_t(unit)];
      expected.insert(expected.end(), values.begin(), values.end());
    }
    REQUIRE(copy(node.state->outer_parameters(f)) == expected);
    REQUIRE(copy(node.state->outer_momentum(f)) == std::vector<float>(expected.size(), 0.0f));
    REQUIRE(node.state->states()[size_t(f)].version == 0);
    REQUIRE(node.state->chunk_count(f) == chunk_count(int64_t(expected.size())));
  }
  REQUIRE(node.state->states()[0].digest != node.state->states()[1].digest);
}

TEST_CASE("the weighted mean is exact where it can be", "[outer][state]") {
  TestNode a(averaging_config(), make_layout(kUnits)), b(averaging_config(), make_layout(kUnits));
  a.local.fill([](int64_t i) { return float(i % 64); });
  b.local.fill([](int64_t i) { return float(i % 64) + 8; });
  const std::vector<OuterState*> both = {a.state.get(), b.state.get()};
  struct Case {
    std::vector<int64_t> weights;
    float mean_of_8;
  };
  for (const Case& c : {Case{{1, 3}, 6}, Case{{5, 0}, 0}, Case{{0, 0}, 4}, Case{{7, 7}, 4}}) {
    TestNode fresh(averaging_config(), make_layout(kUnits));
    apply(*fresh.state, exchange(both, 0, c.weights), Merge::kReplace);
    const std::span<const float> outer = fresh.state->outer_parameters(0);
    for (size_t i = 0; i < outer.size(); ++i) REQUIRE(outer[i] == float(i % 64) + c.mean_of_8);
    REQUIRE(fresh.local.all() == copy(outer));
  }
}

TEST_CASE("parts are summed in the given order, and one part alone is passed on",
          "[outer][state]") {
  OuterConfig config = averaging_config();
  config.contribution_norm_max = 0;  // Parts that differ so much are what is looked at.
  TestNode node(config, make_layout({3}));
  const auto reduce_all = [&](const std::vector<float>& numbers) {
    std::vector<net::FragmentStore::Part> parts;
    for (const float number : numbers) {
      const std::vector<float> values(3, number);
      const auto bytes = std::as_bytes(std::span(values));
      parts.push_back(make_part(0, 0, {bytes.begin(), bytes.end()}));
    }
    float first;
    std::memcpy(&first, node.state->reduce(0, 0, parts).encoded.data(), 4);
    return first;
  };
  REQUIRE(reduce_all({0x1p23f, 1, 1, -0x1p23f}) == 0.5f);  // The quarters survive next to 2^21.
  REQUIRE(reduce_all({0x1p26f, 1, 1, -0x1p26f}) == 0.0f);  // Next to 2^24 they do not.
  REQUIRE(reduce_all({-0x1p26f, 0x1p26f, 1, 1}) == 0.5f);
  REQUIRE(reduce_all({1.25f}) == 1.25f);
  // 3 * float(1/3) is above 1: the mean of largest floats must not become infinite.
  REQUIRE(reduce_all({FLT_MAX, FLT_MAX, FLT_MAX}) == FLT_MAX);
  REQUIRE(reduce_all({-FLT_MAX, -FLT_MAX, -FLT_MAX}) == -FLT_MAX);
}

TEST_CASE("the int8 average of several nodes is off by at most 1.1 %", "[outer][state]") {
  for (const size_t node_count : {2, 4, 8}) {
    INFO(node_count << " nodes");
    std::vector<std::unique_ptr<TestNode>> nodes;
    std::vector<OuterState*> states;
    std::vector<double> exact;
    for (size_t n = 0; n < node_count; ++n) {
      nodes.push_back(std::make_unique<TestNode>(make_config("int8"), make_layout(kUnits)));
      take_steps(*nodes.back(), 100 + n);
      states.push_back(nodes.back()->state.get());
      const std::vector<float> local = nodes.back()->local.all();
      exact.resize(local.size());
      for (size_t i = 0; i < local.size(); ++i) exact[i] -= double(local[i]) / double(node_count);
    }
    OuterConfig config = make_config("int8");
    config.learning_rate = 1;
    config.momentum = 0;
    TestNode reader(config, make_layout(kUnits));
    apply(*reader.state, exchange(states, 0, std::vector<int64_t>(node_count, 1)), Merge::kReplace);
    const std::span<const float> found = reader.state->outer_parameters(0);
    double error = 0, norm = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      error += std::pow(exact[i] + double(found[i]), 2);
      norm += std::pow(exact[i], 2);
    }
    REQUIRE(std::sqrt(error / norm) < 0.011);
    REQUIRE(std::sqrt(error / norm) > 0.003);
  }
}

TEST_CASE("replicas are identical whatever their local parameters, merge and threads",
          "[outer][state]") {
  const shard::Layout layout = make_layout({300'000, 20'000, 5});
  TestNode a(make_config("int8", 2), layout, random_start(5), 1);
  TestNode b(make_config("int8", 2), layout, random_start(5), 2);
  TestNode c(make_config("int8", 2), layout, random_start(5), 3);
  for (uint64_t round = 1; round <= 3; ++round) {
    take_steps(a, 10 * round);
    take_steps(b, 10 * round + 1);
    take_steps(c, 10 * round + 2);
    for (int64_t f = 0; f < 2; ++f) {
      const net::Committed commit = exchange({a.state.get(), b.state.get()}, f, {100, 200});
      const net::FragmentState of_a = apply(*a.state, commit, Merge::kReplace);
      const net::FragmentState of_b = apply(*b.state, commit, Merge::kReplace);
      const net::FragmentState of_c = apply(*c.state, commit, Merge::kRebase);
      REQUIRE(of_a.version == round);
      REQUIRE(of_a == of_b);
      REQUIRE(of_a == of_c);
      REQUIRE(of_a == a.state->states()[size_t(f)]);
      REQUIRE(copy(a.state->outer_parameters(f)) == copy(c.state->outer_parameters(f)));
      REQUIRE(copy(a.state->outer_momentum(f)) == copy(c.state->outer_momentum(f)));
    }
    REQUIRE(a.local.all() == b.local.all());
    REQUIRE(a.local.all() != c.local.all());
  }
}

TEST_CASE("the digest sees every bit, the version and the fragment", "[outer][state]") {
  TestNode node(make_config("fp32"), make_layout({600'000}), random_start(1), 2);
  const std::vector<float> parameters = copy(node.state->outer_parameters(0));
  const std::vector<float> momentum = copy(node.state->outer_momentum(0));
  const auto digest = [&](uint64_t version, const std::vector<float>& p,
                          const std::vector<float>& m) {
    node.state->restore(0, version, p, m);
    return node.state->states()[0].digest;
  };
  const base::Digest original = digest(0, parameters, momentum);
  REQUIRE(digest(1, parameters, momentum) != original);
  for (const size_t place : {size_t{0}, size_t{262'143}, size_t{262'144}, size_t{599'999}}) {
    std::vector<float> changed = parameters;
    changed[place] = std::bit_cast<float>(std::bit_cast<uint32_t>(changed[place]) ^ 1u);
    REQUIRE(digest(0, changed, momentum) != original);
    changed = momentum;
    changed[place] = -0.0f;
    REQUIRE(digest(0, parameters, changed) != original);
  }
  REQUIRE(digest(0, parameters, momentum) == original);
}

TEST_CASE("rebasing keeps the pseudo-gradient", "[outer][state]") {
  const shard::Layout layout = make_layout(kUnits);
  TestNode us(make_config("fp32"), layout, random_start(2));
  TestNode them(make_config("fp32"), layout, random_start(2));
  take_steps(us, 1);
  take_steps(them, 2);
  const std::vector<float> outer_before = copy(us.state->outer_parameters(0));
  const std::vector<float> local_before = us.local.all();
  apply(*us.state, exchange({them.state.get()}, 0, {1}), Merge::kRebase);
  const std::span<const float> outer_after = us.state->outer_parameters(0);
  const std::vector<float> local_after = us.local.all();
  REQUIRE(local_after != local_before);
  for (size_t i = 0; i < local_after.size(); ++i) {
    const float before = outer_before[i] - local_before[i];
    const float after = outer_after[i] - local_after[i];
    // Half a unit in the last place of the new local parameter, which is below 8.
    REQUIRE(std::fabs(after - before) <= 0x1p-22f);
  }
}

TEST_CASE("a replaced state is the donor's, with or without own progress", "[outer][state]") {
  const shard::Layout layout = make_layout({150'000, 90'000, 131'073});
  TestNode donor(make_config("fp32", 2), layout, random_start(3));
  for (int64_t round = 0; round < 2; ++round) {
    take_steps(donor, uint64_t(round));
    apply(*donor.state, exchange({donor.state.get()}, 0, {1}), Merge::kReplace);
  }
  REQUIRE(donor.state->block_count(0) > 1);

  TestNode newcomer(make_config("fp32", 2), layout, random_start(3), 2);
  newcomer.local.fill([](int64_t) { return 0.0f; });
  newcomer.state =
      OuterState::create(make_config("fp32", 2), layout, newcomer.local, newcomer.pool);
  newcomer.local.fill([](int64_t) { return 0.25f; });  // Progress of 0.25 everywhere.

  const bool keep = GENERATE(true, false);
  newcomer.state->begin_replace(keep);
  newcomer.state->begin_replace(!keep);  // Nothing happens.
  transfer(*donor.state, *newcomer.state);
  REQUIRE(newcomer.state->end_replace(donor.state->states()).ok());
  REQUIRE(newcomer.state->states() == donor.state->states());
  std::vector<float> expected;
  for (int64_t f = 0; f < 2; ++f) {
    REQUIRE(copy(newcomer.state->outer_parameters(f)) == copy(donor.state->outer_parameters(f)));
    REQUIRE(copy(newcomer.state->outer_momentum(f)) == copy(donor.state->outer_momentum(f)));
    int64_t first = 0;
    for (const int64_t unit : donor.state->fragment(f).units) {
      for (const float local : newcomer.local.units[size_t(unit)]) {
        const float outer = donor.state->outer_parameters(f)[size_t(first++)];
        REQUIRE(local == (keep ? 0.25f + outer : outer));
      }
    }
  }
  // And it goes on as the donor does.
  take_steps(donor, 77);
  const net::Committed commit = exchange({donor.state.get()}, 0, {1});
  REQUIRE(apply(*donor.state, commit, Merge::kReplace) ==
          apply(*newcomer.state, commit, Merge::kRebase));
}

TEST_CASE("a state that is not the one in force is refused until it is", "[outer][state]") {
  const shard::Layout layout = make_layout({140'000});
  TestNode donor(make_config("int8"), layout, random_start(4));
  apply(*donor.state, exchange({donor.state.get()}, 0, {1}), Merge::kReplace);
  TestNode node(make_config("int8"), layout);
  const auto block = donor.state->read_block(0, 1);
  REQUIRE(block.has_value());
  REQUIRE(!node.state->write_block(0, 1, block->bytes).ok());  // Nobody waits for it.

  node.state->begin_replace(false);
  REQUIRE(!node.state->read_block(0, 0).has_value());
  transfer(*donor.state, *node.state);
  std::vector<std::byte> corrupt = block->bytes;
  corrupt[5] ^= std::byte{1};
  REQUIRE(node.state->write_block(0, 1, corrupt).ok());
  REQUIRE(!node.state->end_replace(donor.state->states()).ok());
  REQUIRE(!node.state->read_block(0, 0).has_value());
  REQUIRE(node.state->states()[0].version == 0);

  SECTION("fetched again") {
    REQUIRE(node.state->write_block(0, 1, block->bytes).ok());
    REQUIRE(node.state->end_replace(donor.state->states()).ok());
    REQUIRE(node.state->states() == donor.state->states());
    REQUIRE(node.state->read_block(0, 0).has_value());
  }
  SECTION("nothing to compare with") {
    REQUIRE(node.state->end_replace({{.version = 1, .digest = {}}}).ok());
    REQUIRE(node.state->states()[0].version == 1);
    REQUIRE(!node.state->states()[0].digest.is_zero());
    REQUIRE(node.state->states() != donor.state->states());
  }
  SECTION("blocks of a wrong size or with numbers that are not finite") {
    REQUIRE(!node.state->write_block(0, 0, block->bytes).ok());
    corrupt.pop_back();
    REQUIRE(!node.state->write_block(0, 1, corrupt).ok());
    corrupt.push_back({});
    const float infinity = std::numeric_limits<float>::infinity();
    std::memcpy(corrupt.data() + 8, &infinity, 4);
    REQUIRE(!node.state->write_block(0, 1, corrupt).ok());
    REQUIRE(!node.state->end_replace({}).ok());
  }
}

TEST_CASE("a contribution is frozen: neither training nor a repair changes it", "[outer][state]") {
  TestNode node(make_config("fp32"), make_layout(kUnits), random_start(6));
  REQUIRE(!node.state->contribution(0, 1));
  take_steps(node, 1);
  REQUIRE(node.state->freeze(0));
  const std::vector<std::byte> before = *node.state->contribution(0, 1);
  take_steps(node, 1);
  REQUIRE(*node.state->contribution(0, 1) == before);
  node.state->begin_replace(true);
  REQUIRE(*node.state->contribution(0, 1) == before);
  REQUIRE(node.state->end_replace(node.state->states()));
  REQUIRE(node.state->freeze(0));
  REQUIRE(*node.state->contribution(0, 1) != before);
  node.state->thaw(0);
  REQUIRE(!node.state->contribution(0, 1));
}

TEST_CASE("numbers that are not finite do not spread", "[outer][state]") {
  for (const char* codec : {"fp32", "int8"}) {
    TestNode node(make_config(codec, 2), make_layout({9000, 50, 100}), random_start(7));
    REQUIRE(node.state->local_is_finite(0));
    node.local.units[0][8999] = std::numeric_limits<float>::quiet_NaN();
    REQUIRE(!node.state->local_is_finite(0));
    REQUIRE(node.state->local_is_finite(1));
    for (int64_t chunk = 0; chunk < node.state->chunk_count(0); ++chunk) {
      REQUIRE(node.state->check_contribution(0, chunk, encoded_contribution(*node.state, 0, chunk))
                  .ok());
    }
    apply(*node.state, exchange({node.state.get()}, 0, {0}), Merge::kReplace);
    REQUIRE(node.state->local_is_finite(0));
  }
}

TEST_CASE("a state that is not finite is neither taken from a checkpoint nor fit to be saved",
          "[outer][state]") {
  TestNode node(make_config("int8", 2), make_layout({9000, 50, 100}), random_start(7));
  const std::vector<float> good = copy(node.state->outer_parameters(0));
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> broken = good;
    broken.back() = bad;
    const auto before = node.state->states();
    REQUIRE_THROWS_AS(node.state->restore(0, 5, broken, good), base::Error);
    REQUIRE_THROWS_AS(node.state->restore(0, 5, good, broken), base::Error);
    REQUIRE(node.state->states() == before);
    REQUIRE(copy(node.state->outer_parameters(0)) == good);
    REQUIRE(node.state->outer_is_finite(0));
    // Memory that went bad.
    const auto memory = node.state->outer_parameters(0);
    const_cast<float&>(memory.back()) = bad;
    REQUIRE(!node.state->outer_is_finite(0));
    REQUIRE(node.state->outer_is_finite(1));
    const_cast<float&>(memory.back()) = good.back();
  }
}

TEST_CASE("a round over fewer than H steps is the mean of the nodes", "[outer][state]") {
  const std::vector<int64_t> weights = {1, 1};
  TestNode a(make_config("fp32"), make_layout(kUnits), random_start(3)),
      b(make_config("fp32"), make_layout(kUnits), random_start(3));
  const auto round = [&](uint64_t step) {
    take_steps(a, step);
    take_steps(b, step + 1000);
    net::Committed commit = exchange({a.state.get(), b.state.get()}, 0, weights);
    commit.step = step;
    std::vector<float> mean = a.local.all();
    for (size_t i = 0; i < mean.size(); ++i) mean[i] = (mean[i] + b.local.all()[i]) / 2;
    apply(*a.state, commit, Merge::kReplace);
    apply(*b.state, commit, Merge::kReplace);
    REQUIRE(a.state->states() == b.state->states());
    double distance = 0;
    for (size_t i = 0; i < mean.size(); ++i)
      distance = std::max(distance, std::abs(double(mean[i]) - a.state->outer_parameters(0)[i]));
    return distance;
  };
  const auto inner_steps = uint64_t(OuterConfig().inner_steps);
  REQUIRE(round(inner_steps) > 1e-3);  // The outer optimiser's step.
  const std::vector<float> momentum = copy(a.state->outer_momentum(0));
  REQUIRE(round(inner_steps + 1) < 1e-6);
  REQUIRE(copy(a.state->outer_momentum(0)) == momentum);
  REQUIRE(round(2 * inner_steps) > 1e-3);
}

TEST_CASE("the new state is there for others before it is merged, and while it is",
          "[outer][state]") {
  TestNode node(make_config("int8"), make_layout(kUnits), random_start(8));
  const net::Committed commit = exchange({node.state.get()}, 0, {1});
  node.state->step(commit);
  REQUIRE(node.state->has_unmerged(0));
  REQUIRE(node.state->read_block(0, 0)->version == 1);
  std::atomic<int> reads = 0;
  node.local.on_write = [&] {
    std::thread([&] { reads += node.state->read_block(0, 0).has_value(); }).join();
  };
  node.state->merge(0, Merge::kReplace);
  REQUIRE(reads > 0);
  REQUIRE(!node.state->has_unmerged(0));
}

TEST_CASE("several threads hand out, check and sum beside the trainer", "[outer][state]") {
  OuterConfig config = make_config("int8");
  config.fragments = 2;
  config.contribution_norm_max = 1;  // So that there are outliers, which are counted.
  TestNode node(config, make_layout({20'000, 50'000}), random_start(5), 2);
  OuterState& state = *node.state;
  take_steps(node, 1);
  state.freeze(1);
  const int64_t chunks = state.chunk_count(1);
  const auto reduce = [&](int64_t chunk) {
    std::vector<net::FragmentStore::Part> parts;
    for (int64_t peer = 0; peer < 4; ++peer) {
      const int64_t source = (chunk + peer) % (chunks - 1);  // The last one is shorter.
      parts.push_back({.peer = net::PeerId(peer),
                       .weight_tokens = 1,
                       .bytes = state.contribution(1, source),
                       .offset = net::kContributionOffset});
    }
    bool is_right = true;
    for (const auto& part : parts)
      is_right = is_right && state.check_contribution(1, chunk, part.encoded()).ok();
    const auto mean = state.reduce(1, chunk, parts).encoded;
    return is_right && state.check_result(1, chunk, mean).ok() ? mean : std::vector<std::byte>{};
  };
  std::vector<std::vector<std::byte>> expected;
  for (int64_t chunk = 0; chunk < chunks - 1; ++chunk) expected.push_back(reduce(chunk));
  const RoundFindings findings = state.take_findings(1);
  REQUIRE(!findings.outliers.empty());

  constexpr int kThreads = 3, kTimes = 20;
  std::atomic<int> unequal = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int64_t i = 0; i < kTimes * (chunks - 1); ++i)
        unequal += reduce(i % (chunks - 1)) != expected[size_t(i % (chunks - 1))];
    });
  }
  for (int round = 0; round < 3; ++round) {
    take_steps(node, round + 2);
    apply(state, exchange({&state}, 0, {1}), Merge::kRebase);
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(unequal == 0);
  const RoundFindings found = state.take_findings(1);
  REQUIRE(found.outliers.size() == findings.outliers.size());
  for (size_t i = 0; i < found.outliers.size(); ++i)
    REQUIRE(found.outliers[i].shortened_chunks == findings.outliers[i].shortened_chunks);
}

TEST_CASE("a restored state goes on as the saved one", "[outer][state]") {
  const shard::Layout layout = make_layout(kUnits);
  TestNode saved(make_config("int8"), layout, random_start(9));
  take_steps(saved, 1);
  apply(*saved.state, exchange({saved.state.get()}, 0, {1}), Merge::kReplace);
  take_steps(saved, 2);

  TestNode restored(make_config("int8"), layout, random_start(123));
  restored.local.units = saved.local.units;
  restored.state->restore(0, 1, saved.state->outer_parameters(0), saved.state->outer_momentum(0));
  REQUIRE(restored.state->states() == saved.state->states());
  const auto round = [](TestNode& node) {
    return apply(*node.state, exchange({node.state.get()}, 0, {1}), Merge::kReplace);
  };
  REQUIRE(round(restored) == round(saved));
  REQUIRE(restored.local.all() == saved.local.all());
}

TEST_CASE("outer state speed", "[.benchmark]") {
  for (const int threads : {1, 2}) {
    TestNode node(make_config("int8"), make_layout({32 << 20}), random_start(1), threads);
    const net::Committed commit = exchange({node.state.get()}, 0, {1});
    const auto start = std::chrono::steady_clock::now();
    apply(*node.state, commit, Merge::kReplace);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf(
        "{\"benchmark\":\"outer_apply\",\"threads\":%d,\"elements\":%d,"
        "\"parameters_per_second\":%.3g}\n",
        threads, 32 << 20, (32 << 20) / seconds);
  }
}
