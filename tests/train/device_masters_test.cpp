// What devices encode and add themselves has the bits of what the host would make of it.
#include "train/device_masters.h"

#include <atomic>

#include "base/hash.h"
#include "outer/fragments.h"
#include "support/catch.h"
#include "train/device_ranks.h"
#include "train/node_rig.h"

namespace {

using outer::Merge;

// A node's parameters with or without what devices do, of which it counts the elements.
class Watched final : public outer::LocalParameters {
 public:
  Watched(train::MasterParameters& masters, bool has_devices)
      : masters_(masters), has_devices_(has_devices) {}

  void read(int64_t unit, int64_t first, std::span<float> elements) override {
    masters_.read(unit, first, elements);
  }
  void write(int64_t unit, int64_t first, std::span<const float> elements) override {
    masters_.write(unit, first, elements);
  }
  void round(std::span<float> elements) const override { masters_.round(elements); }
  int64_t elements_at_a_time() const override { return masters_.elements_at_a_time(); }
  std::unique_ptr<backend::Buffer> allocate(int64_t byte_count) override {
    return masters_.allocate(byte_count);
  }
  std::vector<Range> device_ranges(int64_t unit, Range range) const override {
    return has_devices_ ? masters_.device_ranges(unit, range) : std::vector<Range>{};
  }
  bool encode_difference(int64_t unit, int64_t first, std::span<const float> outer,
                         const Blocks<std::byte>& blocks) override {
    encoded += int64_t(outer.size());
    return masters_.encode_difference(unit, first, outer, blocks);
  }
  void add(int64_t unit, int64_t first, std::span<const float> change,
           const Blocks<const std::byte>* blocks) override {
    added += int64_t(change.size());
    masters_.add(unit, first, change, blocks);
  }

  std::atomic<int64_t> encoded = 0, added = 0;  // The workers of the pool call beside each other.

 private:
  train::MasterParameters& masters_;
  const bool has_devices_;
};

struct Case {
  const char* name;
  int64_t ranks = 1;
  const char* sharding = "full";
  const char* memory = "standard";
  const char* codec = "int8";
  const char* result_codec = "same";
};

const Case kCases[] = {
    {.name = "one rank"},
    {.name = "int4 and int8", .codec = "int4", .result_codec = "int8"},
    {.name = "bf16 masters", .memory = "lean", .codec = "int4"},
    {.name = "three shards", .ranks = 3, .codec = "int4"},
    {.name = "three that have all", .ranks = 3, .sharding = "replicated"},
};

// Units of several chunks, whose sizes are multiples of nothing.
train::RunConfig run_config(const Case& c) {
  train::RunConfig config;
  config.model = {.vocabulary = 1531,
                  .width = 34,
                  .layers = 3,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_size = 34,
                  .feed_forward = 351,
                  .sequence_length = 12};
  config.training = {.steps = 10, .batch_rows = 3, .micro_batch_rows = 1};
  config.outer.codec = c.codec;
  config.outer.result_codec = c.result_codec;
  config.node.device = "cpu";
  config.node.threads = config.node.ranks = c.ranks;
  config.node.sharding = c.sharding;
  config.node.memory = c.memory;
  return config;
}

struct DeviceNode {
  DeviceNode(const train::RunConfig& config, bool has_devices)
      : rig(config, train_test::make_device_ranks(int(config.node.ranks))),
        local(rig.masters, has_devices) {
    drift(1, 0.1f);
    state = outer::OuterState::create(config.outer, rig.layout(), local, pool);
  }

  void drift(uint64_t seed, float size) {
    base::Random random(seed);
    for (size_t u = 0; u < rig.layout().units.size(); ++u) {
      std::vector<float> values(size_t(rig.layout().units[u].element_count));
      rig.masters.read(int64_t(u), 0, values);
      for (float& value : values) value += size * float(random.uniform() - 0.5);
      rig.masters.write(int64_t(u), 0, values);
    }
  }

  train_test::NodeRig rig;
  Watched local;
  base::ThreadPool pool{3};
  std::unique_ptr<outer::OuterState> state;
};

std::vector<std::vector<std::byte>> contributions(DeviceNode& node) {
  std::vector<std::vector<std::byte>> all;
  for (int64_t chunk = 0; chunk < node.state->chunk_count(0); ++chunk)
    all.push_back(*node.state->contribution(0, chunk));
  return all;
}

// Not compared in a REQUIRE, which would print them all.
template <class T>
bool is_same(const T& a, const T& b) {
  return a == b;
}

// What would come of the node's own contribution alone; some chunks are closed without it.
net::Committed round_of(DeviceNode& node) {
  outer::OuterState& state = *node.state;
  net::Committed commit{.round = state.version(0) + 1, .contributed = true, .weight_tokens = 1};
  commit.step = commit.round * uint64_t(node.rig.config.outer.inner_steps);
  for (int64_t chunk = 0; chunk < state.chunk_count(0); ++chunk) {
    const net::FragmentStore::Part part{.weight_tokens = 1,
                                        .bytes = state.contribution(0, chunk),
                                        .offset = net::kContributionOffset};
    auto mean = std::make_shared<const std::vector<std::byte>>(
        state.reduce(0, chunk, std::span(&part, 1)).encoded);
    commit.results.push_back({.weight_tokens = 1, .bytes = std::move(mean)});
    commit.has_ours.push_back(chunk % 3 != 1);
  }
  return commit;
}

}  // namespace

TEST_CASE("devices encode and merge with the bits of the host", "[train][outer]") {
  const Case& c = kCases[GENERATE(range(size_t{0}, std::size(kCases)))];
  INFO(c.name);
  const train::RunConfig config = run_config(c);
  DeviceNode host(config, false), device(config, true);
  int64_t merged = 0;
  for (const Merge how : {Merge::kRebase, Merge::kLerp, Merge::kOverwrite, Merge::kRebase}) {
    for (DeviceNode* node : {&host, &device}) {
      node->drift(uint64_t(merged) + 2, 0.01f);
      REQUIRE(node->state->freeze(0));
    }
    REQUIRE(is_same(contributions(device), contributions(host)));
    const net::Committed commit = round_of(host);
    for (DeviceNode* node : {&host, &device}) {
      node->drift(uint64_t(merged) + 20, 0.01f);
      node->state->step(commit);
      node->state->merge(0, how);
    }
    REQUIRE(is_same(device.rig.parameters(), host.rig.parameters()));
    REQUIRE(device.state->states() == host.state->states());
    ++merged;
  }
  // Most of it: of what is near the borders of units and shards, the host takes care.
  const int64_t count = device.rig.layout().element_count();
  REQUIRE(device.local.encoded > merged * count / 2);
  REQUIRE(device.local.added > count);
  REQUIRE(host.local.encoded + host.local.added == 0);
}

TEST_CASE("devices see what is not finite", "[train][outer]") {
  const Case& c = kCases[GENERATE(range(size_t{0}, std::size(kCases)))];
  INFO(c.name);
  DeviceNode node(run_config(c), true);
  REQUIRE(node.state->freeze(0));
  const std::vector<float> infinity = {std::numeric_limits<float>::infinity()};
  node.rig.masters.write(0, 5000, infinity);
  REQUIRE(!node.state->freeze(0));
  const auto zeros = contributions(node);
  node.drift(1, 0.1f);
  REQUIRE(!node.state->freeze(0));
  REQUIRE(is_same(contributions(node), zeros));
}
