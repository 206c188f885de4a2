#include "net/coordinator/regions.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace net {
namespace {

constexpr double kNear = 0.005;
constexpr double kStepMin = 3;
constexpr double kUnknown = 1e6;  // Seconds per byte, far above any.

struct Edge {
  double length = 0;
  size_t one = 0, other = 0;
};

double distance(const Ways& ways, size_t one, size_t other) {
  const double measured = ways.at(one, other).round_trip;
  return measured > 0 ? std::max(measured, kNear) : std::numeric_limits<double>::infinity();
}

// Prim's algorithm; of equals the lowest index.
std::vector<Edge> spanning_tree(const Ways& ways) {
  std::vector<Edge> nearest(ways.count, {.length = std::numeric_limits<double>::infinity()});
  std::vector<char> is_in(ways.count, 0);
  std::vector<Edge> tree;
  for (size_t next = 0; tree.size() + 1 < ways.count;) {
    is_in[next] = 1;
    size_t best = ways.count;
    for (size_t other = 0; other < ways.count; ++other) {
      if (is_in[other] != 0) continue;
      const double length = distance(ways, next, other);
      if (length < nearest[other].length) nearest[other] = {length, next, other};
      if (best == ways.count || nearest[other].length < nearest[best].length) best = other;
    }
    tree.push_back(nearest[best]);
    next = best;
  }
  return tree;
}

// Seconds that a byte takes, and a second per second of the round trip beside a megabyte.
double step_cost(const Ways& ways, size_t one, size_t other) {
  const double rate =
      std::min(ways.at(one, other).bytes_per_second, ways.at(other, one).bytes_per_second);
  if (rate <= 0) return kUnknown + ways.at(one, other).round_trip;
  return 1 / rate + ways.at(one, other).round_trip / 1e6;
}

using Order = std::vector<uint8_t>;

// The slowest step, then all together.
std::pair<double, double> ring_cost(const Ways& ways, const Order& order) {
  std::pair<double, double> cost{0, 0};
  for (size_t place = 0; place < order.size(); ++place) {
    const double step = step_cost(ways, order[place], order[(place + 1) % order.size()]);
    cost = {std::max(cost.first, step), cost.second + step};
  }
  return cost;
}

Order nearest_neighbours(const Ways& ways) {
  Order order{0};
  std::vector<char> is_in(ways.count, 0);
  is_in[0] = 1;
  while (order.size() < ways.count) {
    size_t best = ways.count;
    for (size_t other = 0; other < ways.count; ++other) {
      if (is_in[other] != 0) continue;
      if (best == ways.count ||
          step_cost(ways, order.back(), other) < step_cost(ways, order.back(), best))
        best = other;
    }
    is_in[best] = 1;
    order.push_back(uint8_t(best));
  }
  return order;
}

}  // namespace

std::vector<uint8_t> regions_of(const Ways& ways) {
  if (ways.count < 3) return {};
  std::vector<Edge> edges = spanning_tree(ways);
  std::ranges::sort(edges, {}, &Edge::length);
  double largest = kStepMin;
  size_t near_count = 0;
  for (size_t i = 1; i < edges.size(); ++i) {
    const double step = edges[i].length / edges[i - 1].length;
    if (step < largest || (step == largest && near_count != 0)) continue;
    largest = step;
    near_count = i;
  }
  if (near_count == 0) return {};
  std::vector<size_t> root(ways.count);
  std::iota(root.begin(), root.end(), size_t{0});
  for (size_t i = 0; i < near_count; ++i) {
    const auto [kept, gone] = std::minmax(root[edges[i].one], root[edges[i].other]);
    std::ranges::replace(root, size_t(gone), size_t(kept));
  }
  std::vector<size_t> seen;
  std::vector<uint8_t> regions;
  for (const size_t one : root) {
    const auto found = std::ranges::find(seen, one);
    regions.push_back(uint8_t(found - seen.begin()));
    if (found == seen.end()) seen.push_back(one);
  }
  return regions;
}

std::vector<uint8_t> ring_of(const Ways& ways) {
  Order order = nearest_neighbours(ways);
  auto cost = ring_cost(ways, order);
  constexpr int kPassesMax = 20;
  bool is_better = true;
  for (int pass = 0; pass < kPassesMax && std::exchange(is_better, false); ++pass) {
    for (size_t first = 1; first + 1 < order.size(); ++first) {
      for (size_t last = first + 1; last < order.size(); ++last) {
        std::reverse(order.begin() + int64_t(first), order.begin() + int64_t(last) + 1);
        const auto other = ring_cost(ways, order);
        if (other < cost) {
          cost = other;
          is_better = true;
        } else {
          std::reverse(order.begin() + int64_t(first), order.begin() + int64_t(last) + 1);
        }
      }
    }
  }
  std::vector<uint8_t> places(order.size());
  for (size_t place = 0; place < order.size(); ++place) places[order[place]] = uint8_t(place);
  return places;
}

}  // namespace net
