#include "net/coordinator/path_table.h"

#include <algorithm>

namespace net {
namespace {

// Nodes that are gone are forgotten when there are too many; those that stay tell again.
constexpr size_t kNodesMax = 4 * size_t(kMembersMax);
// Of the best rate before, when a lower one is measured: a round may not have needed it.
constexpr double kKept = 0.8;

}  // namespace

void PathTable::take(uint64_t from, uint64_t to, const Way& way) {
  if (ways_.size() >= kNodesMax && !ways_.contains(from)) ways_.clear();
  auto& row = ways_[from];
  if (row.size() >= kNodesMax && !row.contains(to)) row.clear();
  Way& known = row[to];
  if (way.round_trip > 0) known.round_trip = way.round_trip;
  if (way.bytes_per_second > 0)
    known.bytes_per_second = std::max(way.bytes_per_second, kKept * known.bytes_per_second);
}

Ways PathTable::between(const std::vector<Contributor>& contributors) const {
  const size_t count = contributors.size();
  Ways ways{.count = count, .from_to = std::vector<Way>(count * count)};
  ways.up.assign(count, 0);
  ways.down.assign(count, 0);
  for (size_t from = 0; from < count; ++from) {
    const auto row = ways_.find(contributors[from].node_key);
    if (row == ways_.end()) continue;
    for (size_t to = 0; to < count; ++to) {
      const auto found = row->second.find(contributors[to].node_key);
      if (found == row->second.end() || from == to) continue;
      Way& way = ways.from_to[from * count + to];
      way.bytes_per_second = found->second.bytes_per_second;
      ways.up[from] += way.bytes_per_second;
      ways.down[to] += way.bytes_per_second;
      // Of two that were measured the shorter one: the other had to wait for something.
      for (Way* const one : {&way, &ways.from_to[to * count + from]}) {
        const double measured = found->second.round_trip;
        if (measured > 0 && (one->round_trip == 0 || measured < one->round_trip))
          one->round_trip = measured;
      }
    }
  }
  return ways;
}

bool Ways::is_known(ContributorMask dialled) const {
  for (size_t one = 0; one < count; ++one) {
    if (up[one] <= 0 || down[one] <= 0) return false;
    for (size_t other = 0; other < one; ++other) {
      const bool can_meet = contains(dialled, int64_t(one)) || contains(dialled, int64_t(other));
      if (can_meet && at(one, other).round_trip <= 0) return false;
    }
  }
  return true;
}

}  // namespace net
