// What the tests of this floor share: a node's parameters in plain vectors, and an exchange without
// a network.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "base/hash.h"
#include "outer/outer_state.h"

namespace outer::testing {

// Units of these sizes, with one tensor each.
inline shard::Layout make_layout(const std::vector<int64_t>& unit_sizes) {
  shard::Layout layout;
  for (size_t u = 0; u < unit_sizes.size(); ++u) {
    shard::Unit unit{.name = fmt::format("unit{}", u), .tensors = {}, .element_count = 0};
    shard::add_tensor(unit, "weight", {unit_sizes[u]}, {});
    layout.units.push_back(std::move(unit));
  }
  return layout;
}

class VectorParameters final : public LocalParameters {
 public:
  explicit VectorParameters(const shard::Layout& layout) {
    for (const shard::Unit& unit : layout.units) units.emplace_back(size_t(unit.element_count));
  }
  void read(int64_t unit, int64_t first, std::span<float> elements) override {
    check_range(unit, first, elements.size());
    std::copy_n(units[size_t(unit)].begin() + first, elements.size(), elements.begin());
  }
  void write(int64_t unit, int64_t first, std::span<const float> elements) override {
    check_range(unit, first, elements.size());
    if (on_write) on_write();
    std::ranges::copy(elements, units[size_t(unit)].begin() + first);
  }
  // element(i) of all units in their order.
  void fill(const std::function<float(int64_t)>& element) {
    int64_t index = 0;
    for (auto& unit : units) {
      for (float& value : unit) value = element(index++);
    }
  }
  std::vector<float> all() const {
    std::vector<float> values;
    for (const auto& unit : units) values.insert(values.end(), unit.begin(), unit.end());
    return values;
  }

  std::vector<std::vector<float>> units;
  std::function<void()> on_write;

 private:
  void check_range(int64_t unit, int64_t first, size_t count) const {
    if (first < 0 || size_t(first) + count > units.at(size_t(unit)).size()) {
      throw std::out_of_range("local parameters");
    }
  }
};

// A node without a swarm. `start` gives the parameters that all nodes of a test begin with; none:
// zeros.
struct TestNode {
  TestNode(
      const OuterConfig& config, const shard::Layout& layout_in,
      const std::function<float(int64_t)>& start = [](int64_t) { return 0.0f; },
      int thread_count = 1)
      : layout(layout_in), local(layout), pool(thread_count) {
    if (start) local.fill(start);
    state = OuterState::create(config, layout, local, pool);
  }
  const shard::Layout layout;
  VectorParameters local;
  base::ThreadPool pool;
  std::unique_ptr<OuterState> state;
};

inline net::FragmentStore::Part make_part(net::PeerId peer, int64_t weight_tokens,
                                          std::vector<std::byte> encoded) {
  return {.peer = peer,
          .weight_tokens = weight_tokens,
          .bytes = std::make_shared<const std::vector<std::byte>>(std::move(encoded)),
          .offset = 0};
}

// A chunk of the contribution that the node would freeze now.
inline std::vector<std::byte> encoded_contribution(OuterState& state, int64_t fragment,
                                                   int64_t chunk) {
  state.freeze(fragment);
  const net::Bytes payload = state.contribution(fragment, chunk);
  return {payload->begin() + net::kContributionOffset, payload->end()};
}

// The outer step and the merge, with nothing in between.
inline net::FragmentState apply(OuterState& state, const net::Committed& commit, Merge how) {
  state.step(commit);
  state.merge(commit.fragment, how);
  return state.state(commit.fragment);
}

// What the round would bring: every node's contribution, reduced by the first node.
inline net::Committed exchange(const std::vector<OuterState*>& nodes, int64_t fragment,
                               const std::vector<int64_t>& weights) {
  net::Committed commit{.fragment = fragment};
  commit.round = nodes[0]->states()[size_t(fragment)].version + 1;
  commit.contributed = true;
  commit.step = commit.round * uint64_t(OuterConfig().inner_steps);
  for (OuterState* node : nodes) node->freeze(fragment);
  for (int64_t chunk = 0; chunk < nodes[0]->chunk_count(fragment); ++chunk) {
    std::vector<net::FragmentStore::Part> parts;
    int64_t total = 0;
    for (size_t i = 0; i < nodes.size(); ++i) {
      parts.push_back({.peer = net::PeerId(i),
                       .weight_tokens = weights[i],
                       .bytes = nodes[i]->contribution(fragment, chunk),
                       .offset = net::kContributionOffset});
      total += weights[i];
    }
    commit.weight_tokens = total;
    commit.has_ours.push_back(1);
    commit.results.push_back(make_part(0, total, nodes[0]->reduce(fragment, chunk, parts).encoded));
  }
  return commit;
}

// Standard normal numbers (Box-Muller).
inline float gaussian(base::Random& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
  return float(radius * std::cos(2 * std::numbers::pi * random.uniform()));
}

}  // namespace outer::testing
