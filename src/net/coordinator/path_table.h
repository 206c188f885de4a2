// What members have measured of their ways to each other, by node key: numbers change.
//
// A way is believed to carry what it has carried, and not more: how much more it could is seen only
// when it is asked to.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "net/exchange/plan.h"

namespace net {

struct Way {
  double round_trip = 0;        // Seconds; 0: not known.
  double bytes_per_second = 0;  // 0: not known.
};

// Between the contributors of a round, by index.
struct Ways {
  size_t count = 0;
  std::vector<Way> from_to;      // from * count + to; round trips are those of both directions.
  std::vector<double> up, down;  // Bytes per second of all its ways together.

  const Way& at(size_t from, size_t to) const { return from_to[from * count + to]; }
  // Each has sent and received, and all pairs that can reach each other have.
  bool is_known(ContributorMask dialled) const;
};

class PathTable {
 public:
  void take(uint64_t from, uint64_t to, const Way& way);
  Ways between(const std::vector<Contributor>& contributors) const;

 private:
  std::map<uint64_t, std::map<uint64_t, Way>> ways_;  // By sender and receiver.
};

}  // namespace net
