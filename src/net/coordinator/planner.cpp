#include "net/coordinator/planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "net/coordinator/regions.h"
#include "net/probe.h"

namespace net {
namespace {

using Kind = CoordinatorOptions::Plan;

constexpr int64_t kDirectRounds = 8;
// What another plan must take at most, of what the last one would.
constexpr double kBetter = 0.8;
// Shares of owners stay as they are while none is farther from what was measured than that.
constexpr double kShareStep = 1.25;
// So many chunks say what all would take.
constexpr int64_t kChunksLooked = 512;

// Where nothing is known, neighbours by number: about as many regions as each has members.
std::vector<uint8_t> regions_by_number(size_t contributor_count) {
  const auto size = size_t(std::ceil(std::sqrt(double(contributor_count))));
  std::vector<uint8_t> regions;
  for (size_t index = 0; index < contributor_count; ++index)
    regions.push_back(uint8_t(index / size));
  return regions;
}

std::vector<uint8_t> ring_by_number(size_t contributor_count) {
  std::vector<uint8_t> places(contributor_count);
  std::iota(places.begin(), places.end(), uint8_t{0});
  return places;
}

bool are_near(double one, double other) {
  return one <= kShareStep * other && other <= kShareStep * one;
}

// Bytes on each way, by from * count + to.
std::vector<double> traffic_of(const Plan& plan, size_t count,
                               const CoordinatorOptions::RoundBytes& bytes) {
  const double chunks = std::max<double>(1, double(plan.trees.size()));
  const double contribution = double(bytes.contribution) / chunks;
  const double result = double(bytes.result) / chunks;
  std::vector<double> traffic(count * count, 0.0);
  for (const Tree& tree : plan.trees) {
    for (size_t index = 0; index < count; ++index) {
      if (index == tree.owner) continue;
      const size_t parent = tree.parent(int64_t(index));
      traffic[index * count + parent] += tree.is_inner(int64_t(index)) ? result : contribution;
      traffic[parent * count + index] += result;
    }
  }
  return traffic;
}

double longest_way(const Plan& plan, const Ways& ways) {
  double longest = 0;
  for (const Tree& tree : plan.trees) {
    for (size_t index = 0; index < ways.count; ++index) {
      double way = 0;
      for (size_t at = index; at != tree.owner; at = tree.parent(int64_t(at)))
        way += ways.at(at, tree.parent(int64_t(at))).round_trip;
      longest = std::max(longest, way);
    }
  }
  return longest;
}

}  // namespace

double estimated_seconds(const Plan& plan, const Ways& ways,
                         const CoordinatorOptions::RoundBytes& bytes) {
  const size_t count = ways.count;
  const std::vector<double> traffic = traffic_of(plan, count, bytes);
  double seconds = 0;
  for (size_t one = 0; one < count; ++one) {
    double sent = 0, received = 0;
    for (size_t other = 0; other < count; ++other) {
      const double there = traffic[one * count + other];
      sent += there;
      received += traffic[other * count + one];
      // A way that was not used so far: its share of what both ends carry.
      const double known = ways.at(one, other).bytes_per_second;
      const double rate =
          known > 0 ? known : std::min(ways.up[one], ways.down[other]) / double(count - 1);
      if (there > 0) seconds = std::max(seconds, there / rate);
    }
    if (sent > 0) seconds = std::max(seconds, sent / ways.up[one]);
    if (received > 0) seconds = std::max(seconds, received / ways.down[one]);
  }
  return seconds + longest_way(plan, ways);
}

void Planner::on_stuck() {
  direct_rounds_ = kDirectRounds;
}

// With auto a plan must keep what outer.mean promises: see CoordinatorOptions::Guard.
bool Planner::may_be(PlanKind plan) const {
  using Guard = CoordinatorOptions::Guard;
  switch (options_.plan) {
    case Kind::kDirect:
      return plan == PlanKind::kDirect;
    case Kind::kTwoLevel:
      return plan == PlanKind::kTwoLevel;
    case Kind::kRing:
      return plan == PlanKind::kRing;
    case Kind::kAuto:
      break;
  }
  if (plan == PlanKind::kTwoLevel) return options_.guard != Guard::kElements;
  return plan == PlanKind::kDirect || options_.guard == Guard::kNone;
}

// In proportion to the slower direction of each; equal where they are nearly so.
std::vector<double> Planner::shares(const Open& open, const Ways& ways) {
  std::vector<double> measured;
  double all = 0;
  for (size_t index = 0; index < ways.count; ++index) {
    measured.push_back(std::min(ways.up[index], ways.down[index]));
    all += measured.back();
  }
  for (double& share : measured) share /= all;
  const auto [least, most] = std::ranges::minmax(measured);
  if (are_near(least, most)) return {};
  bool is_kept = shares_.size() == ways.count;
  for (size_t index = 0; index < ways.count && is_kept; ++index) {
    const auto used = shares_.find(open.contributors[index].node_key);
    is_kept = used != shares_.end() && are_near(used->second, measured[index]);
  }
  if (!is_kept) {
    shares_.clear();
    for (size_t index = 0; index < ways.count; ++index)
      shares_[open.contributors[index].node_key] = measured[index];
  }
  for (size_t index = 0; index < ways.count; ++index)
    measured[index] = shares_.at(open.contributors[index].node_key);
  return measured;
}

std::vector<Planner::Choice> Planner::candidates(const Open& open, const Ways& ways,
                                                 bool is_known) {
  const size_t count = open.contributors.size();
  const std::vector<double> by_rate = is_known ? shares(open, ways) : std::vector<double>{};
  std::vector<Choice> all{{.plan = PlanKind::kDirect, .places = {}, .shares = by_rate}};
  // A subtotal without a weight would not say how many are in it.
  const bool has_weights = open.contributors.front().weight_tokens > 0;
  if (count < 3 || !has_weights || direct_rounds_ > 0) return all;
  const bool is_auto = options_.plan == Kind::kAuto;
  if (may_be(PlanKind::kTwoLevel) && (is_known || !is_auto)) {
    auto regions = is_known ? regions_of(ways) : std::vector<uint8_t>{};
    if (regions.empty() && !is_auto) regions = regions_by_number(count);
    if (!regions.empty()) all.push_back({PlanKind::kTwoLevel, std::move(regions), by_rate});
  }
  if (may_be(PlanKind::kRing) && (is_known || !is_auto)) {
    // Whoever owns a chunk has the same work in a ring as the others.
    all.push_back({PlanKind::kRing, is_known ? ring_of(ways) : ring_by_number(count), {}});
  }
  if (all.size() > 1 && !may_be(PlanKind::kDirect)) all.erase(all.begin());
  return all;
}

double Planner::estimate(const Open& open, const Choice& choice, const Ways& ways,
                         size_t fragment) const {
  Open looked{.contributors = open.contributors, .plan = choice.plan, .places = choice.places};
  looked.owners = make_owners(std::min(options_.chunk_counts[fragment], kChunksLooked),
                              possible_owners(open.contributors), choice.shares);
  return estimated_seconds(make_plan(looked, 0), ways, options_.round_bytes[fragment]);
}

void Planner::choose(Open& open, size_t fragment) {
  const ContributorMask owners = possible_owners(open.contributors);
  const Ways ways = table_.between(open.contributors);
  const bool is_known = fragment < options_.round_bytes.size() && open.contributors.size() > 1 &&
                        ways.is_known(owners);
  std::vector<Choice> all = candidates(open, ways, is_known);
  const Choice* best = &all.front();
  const Choice* last = nullptr;
  for (Choice& choice : all) {
    if (is_known) choice.seconds = estimate(open, choice, ways, fragment);
    if (choice.seconds < best->seconds) best = &choice;
    if (choice.plan == last_) last = &choice;
  }
  if (last && best->seconds > kBetter * last->seconds) best = last;
  probe<"a plan follows from what was measured">(is_known);
  probe<"owners have shares by what was measured">(!best->shares.empty());
  if (direct_rounds_ > 0) {
    --direct_rounds_;
  } else {
    last_ = best->plan;
  }
  open.owners = make_owners(options_.chunk_counts[fragment], owners, best->shares);
  open.plan = best->plan;
  open.places = best->places;
  open.estimated_ms =
      uint32_t(std::clamp(std::round(1e3 * best->seconds), is_known ? 1.0 : 0.0, 4e9));
}

}  // namespace net
