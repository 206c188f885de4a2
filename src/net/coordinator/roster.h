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
  kWaiting,     // For the start of the run, or for a word on its state, which is newer.
  kCatchingUp,  // Was sent CatchUp.
  kActive,      // Takes part in rounds.
};

// What follows from a data port that cannot be dialled.
enum class PortNews {
  kNone,
  kDialsOthers,  // It dials the others, and sums nothing.
  kIsAlone,      // It alone has the state.
  kNobodyCan,    // Nobody else can be dialled either: no round can be made.
};

struct MemberRecord {
  PeerId peer = kNobody;
  LinkId link = 0;
  uint64_t node_key = 0;
  std::string name;
  Endpoint remote;  // Of its link.
  Endpoint data;
  Standing standing = Standing::kWaiting;
  bool was_active = false;
  bool is_founder = false;  // Held the state in force when the run started.
  bool is_synced = false;   // Has said that it holds the state; it becomes active if that is true.
  // Rounds that had been committed when it became active; -1 for founders.
  int64_t entered_after = -1;
  // Others had trained since the last commit when it came: it is not waited for in the round that
  // their steps are for.
  bool came_in_between = false;
  bool is_reachable = false;             // Its data port, by the last try.
  PortNews port_news = PortNews::kNone;  // What it was told of its data port,
  Bytes visits;                          // and whom to dial instead of being dialled.
  bool contributes = true;               // Else it receives results, and nobody waits for it.
  uint64_t contributed_step = 0;         // Of the last commit with its work in it,
  std::map<int64_t, uint64_t> contributed_round;  // and which it was, by fragment.
  // Its last list of active members, as it told.
  uint32_t last_term = 0;
  uint64_t last_epoch = 0;
  uint32_t last_member_count = 0;
  uint32_t list_term = 0;
  uint64_t list_epoch = 0;
  std::vector<Electorate> electorates;  // Of the same list, or that of which its disk knows.
  bool remembers = true;                // It was in that list since it was started.
  uint64_t coordinator = 0;             // That it followed last.
  bool is_home = true;                  // It came to where the run begins.
  bool was_reachable = true;            // For the coordinator before.
  std::vector<HeldRound> held;

  bool is_welcome = false;   // It was sent Welcome
  Instant welcomed_at{};     // then,
  bool is_fenced = false;    // and has said something since: it listens to nobody else.
  uint64_t known_epoch = 0;  // Of ours.

  std::vector<FragmentState> states;  // A zero digest: a round was committed, Applied is to come.
  std::vector<std::optional<Ready>> ready;  // Per fragment.

  Bytes catch_up;             // The last one that was sent,
  Instant told_at{};          // then,
  Duration catch_up_time{};   // and how long the one before took it.
  uint64_t outrun_count = 0;  // Times that another commit came before it was active.
  struct Moment {
    int64_t committed_count = 0;
    Instant at{};
  };
  std::optional<Moment> nearly_there_since;  // When it first lacked little.

  uint32_t term = 0;     // The last one that it knew before it came,
  uint64_t samples = 0;  // and how many it had heard to be handed out.
  uint64_t step = 0;
  float loss = 0;
  Instant came_at{};
  Instant heard_at{};   // Anything.
  Heartbeat heartbeat;  // The last one,
  Instant heartbeat_at{};
  Instant progress_at{};              // when its progress last rose,
  Instant lacked_contributions_at{};  // when one last said so,
  using Since = std::array<std::optional<Instant>, size_t(kMembersMax)>;
  Since no_contribution_since{};  // and since when it complains of whom.
  Since no_result_since{};
  Since undialled_since{};

  // It has no data port, and wants nothing but to receive results.
  bool is_watcher() const { return data.port == 0; }
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
  const MemberRecord* find_node(uint64_t node_key) const;
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
