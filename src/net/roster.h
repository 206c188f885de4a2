// The members as the coordinator knows them.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/coordinator.h"

namespace net {

enum class Standing {
  kWaiting,     // For the start of the run.
  kCatchingUp,  // Was sent CatchUp.
  kActive,      // Takes part in rounds.
};

struct MemberRecord {
  PeerId peer = kNobody;
  LinkId link = 0;
  uint64_t node_key = 0;
  std::string name;
  Endpoint data;
  Standing standing = Standing::kWaiting;
  bool was_active = false;
  bool is_founder = false;  // Held the state in force when the run started.
  uint64_t entered_at = 0;  // The step at which it came into the run; 0 for those who started it.

  std::vector<FragmentState> states;  // A zero digest: a round was committed, Applied is to come.
  std::vector<std::optional<Ready>> ready;  // Per fragment.

  Bytes catch_up;  // The last one that was sent.

  uint32_t term = 0;     // The last one that it knew before it came,
  uint64_t samples = 0;  // and how many it had heard to be handed out.
  uint64_t step = 0;
  float loss = 0;
  Instant heard_at{};     // Anything.
  uint64_t progress = 0;  // Of the heartbeats,
  Instant progress_at{};  // and when it last rose.
  Instant heartbeat_at{};
  std::array<std::optional<Instant>, size_t(kMembersMax)> waiting_since{};  // For a peer's chunks.

  bool is_active() const { return standing == Standing::kActive; }
};

class Roster {
 public:
  // Gives it a number that is neither in use nor reserved: its old one if it had one, or else the
  // lowest. nullptr if there is none.
  MemberRecord* add(MemberRecord record, const std::set<PeerId>& reserved);
  void remove(PeerId peer) { members_.erase(peer); }

  MemberRecord* find(PeerId peer);
  MemberRecord* find_link(LinkId link);
  MemberRecord* find_node(uint64_t node_key);
  bool has_node(uint64_t node_key) const;

  std::map<PeerId, MemberRecord>& all() { return members_; }
  const std::map<PeerId, MemberRecord>& all() const { return members_; }
  int64_t count() const { return int64_t(members_.size()); }
  // In the order of their numbers. A copy: the roster may change while it is walked through.
  std::vector<PeerId> peers() const;
  std::vector<PeerId> active_peers() const;

 private:
  std::map<PeerId, MemberRecord> members_;
  std::map<uint64_t, PeerId> last_numbers_;  // By node key.
};

}  // namespace net
