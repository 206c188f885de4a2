// What must hold over all trainers of a cluster, whatever happens to them. How their numbers tell
// it stands in net/fake_trainer.h.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"

namespace net {

// What all trainers of a cluster find wrong, and what they must agree on.
class Oracle {
 public:
  void violated(const std::string& what) { violations_.push_back(what); }
  const std::vector<std::string>& violations() const { return violations_; }

  struct RoundKey {
    uint32_t term = 0;
    int64_t fragment = 0;
    uint64_t round = 0;
    auto operator<=>(const RoundKey&) const = default;
  };
  // One member's view of a commit: everybody's must be the same.
  void saw_commit(const RoundKey& key, const base::Digest& results);
  // `counted`: the work that the round brought, chunk by chunk.
  void saw_state(const RoundKey& key, const base::Digest& before, const base::Digest& after,
                 std::vector<uint64_t> counted);
  int64_t round_count() const { return int64_t(results_.size()); }

  // Of a piece of work; never 0, never given twice.
  uint64_t next_serial() { return ++last_serial_; }
  // The history of a state, itself included, the newest first, as far back as it was seen.
  std::vector<base::Digest> history(int64_t fragment, const base::Digest& state) const;
  // Nothing that is in the state may be in it twice.
  void check_work(int64_t fragment, const base::Digest& state);
  // Members say weights that the coordinator does not believe: they are not what is summed.
  void distrust_weights() { are_weights_exact_ = false; }
  bool are_weights_exact() const { return are_weights_exact_; }

 private:
  void check_neighbours(const RoundKey& key);

  struct Step {  // From one state to the next.
    base::Digest before;
    std::vector<uint64_t> counted;
  };
  std::map<RoundKey, base::Digest> results_;
  std::map<RoundKey, std::pair<base::Digest, base::Digest>> states_;
  std::map<std::pair<int64_t, base::Digest>, Step> steps_;  // By fragment and what they led to.
  std::vector<std::string> violations_;
  uint64_t last_serial_ = 0;
  bool are_weights_exact_ = true;
};

}  // namespace net
