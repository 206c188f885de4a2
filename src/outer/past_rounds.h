// The results of a fragment's last rounds, for those who fetch its state while it moves: they bring
// an older state up to date at the bytes of a result, not of the state. Bytes are shared with
// whoever had them.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "net/fragment_store.h"

namespace outer {

struct PastRound {
  uint64_t step = 0;
  std::vector<net::FragmentStore::Part> results;  // Per chunk.
  std::vector<char> is_refused;
};

class PastRounds {
 public:
  explicit PastRounds(int64_t kept_max = 0) : kept_max_(kept_max) {}

  // Forgets the oldest ones beyond those that are kept. `version`: that the round made.
  void add(uint64_t version, PastRound round);
  // They lead to another state than the one that we have now.
  void clear();
  std::optional<net::FragmentStore::PastChunk> find(uint64_t version, int64_t chunk) const;

 private:
  const int64_t kept_max_;
  mutable std::mutex mutex_;
  std::map<uint64_t, PastRound> rounds_;
};

}  // namespace outer
