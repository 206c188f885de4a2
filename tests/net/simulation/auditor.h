// Hears all that is delivered, and holds every commit against what the members had said: there is
// one result per round and term, enough of those for whom the round was opened hold it, and nobody
// is told to apply what he does not hold. It knows nothing of the machines, only messages.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "net/fake_trainer.h"

namespace net {

class Auditor {
 public:
  Auditor(Oracle& oracle, int64_t members_min) : oracle_(oracle), members_min_(members_min) {}

  void hear(HostId from, HostId to, const Message& message);

 private:
  using RoundKey = Oracle::RoundKey;
  struct Said {
    PeerId peer = kNobody;
    base::Digest results;
  };
  struct Heard {                                                   // Of a round.
    std::map<uint32_t, std::vector<PeerId>> contributors;          // By the attempt that opened it.
    std::map<uint32_t, std::map<HostId, std::vector<Said>>> done;  // By attempt.
    std::optional<base::Digest> results;                           // Committed.
  };

  void check(HostId to, const Authority& authority, const Commit& commit);
  bool has_enough(const Heard& heard, uint32_t attempt, const base::Digest& results) const;

  Oracle& oracle_;
  const int64_t members_min_;
  std::map<RoundKey, Heard> rounds_;
};

}  // namespace net
