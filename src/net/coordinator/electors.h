// Whether those who follow this coordinator may decide for the run: the electorates
// (net/coordinator/electorate.h) as the roster fills them. In a run that does not fail over, the
// one coordinator decides with whoever is there.
#pragma once

#include <optional>
#include <set>
#include <tuple>

#include "net/coordinator/electorate.h"
#include "net/coordinator/roster.h"
#include "net/coordinator/speaker.h"

namespace net {

// What the last coordinator left behind.
struct Inheritance {
  uint32_t term = 0;
  uint64_t epoch = 0;
  std::vector<Electorate> electorates;  // Of all of them a quorum is needed.

  auto order() const { return std::tuple(term, epoch); }
  bool has_voter(uint64_t node_key) const;
};

// Which members are counted: any; those who follow us and nobody else; those who remember what they
// had promised, as they have not been started again since.
enum class Here { kAny, kFenced, kRemembers, kFencedAndRemembers };

class Electors {
 public:
  // Both outlive the object.
  Electors(const CoordinatorOptions& options, const Roster& roster)
      : options_(options), roster_(roster) {}

  // Of the newest list that anybody here, or our own disk, knows of. Nothing: the run has none.
  std::optional<Inheritance> inheritance() const;
  // What the disk knows is of a run that nobody remembers.
  void forget_log() { is_log_forgotten_ = true; }
  bool is_quorum_here(const Inheritance& inherited, Here who) const;
  bool is_everybody_here(const Inheritance& inherited, Here who) const;
  // Whether this member comes from a coordinator that has taken over after our last word.
  bool is_deposed_by(const MemberRecord& member, const Speaker& speaker) const;

  // We coordinate from now on, or do not any more.
  void begin(const std::optional<Inheritance>& inherited);
  void end() { begin(std::nullopt); }
  // What active members are told with a new epoch. Makes the electorate that is due, if it can.
  Membership next(const Speaker& speaker);
  // Those who should vote are others than those of the last list, and a new one can be made.
  bool is_outdated() const;
  bool is_settled() const { return electorates_.is_settled(); }
  // True if a list is settled, which members should hear.
  bool settle();
  // It has said that it goes: it will never follow another coordinator as the voter that it was.
  void left(uint64_t node_key) { left_.insert(node_key); }
  void came_back(uint64_t node_key) { left_.erase(node_key); }

  // Do these members' words bind the run?
  bool is_quorum(const std::vector<PeerId>& peers) const;
  bool is_quorum_active() const { return is_quorum(roster_.active_peers()); }
  // Active or not, they follow nobody else.
  bool is_quorum_fenced() const;

 private:
  std::set<uint64_t> present(Here who) const;
  std::vector<uint64_t> voters() const;
  uint64_t tie_breaker(const std::vector<uint64_t>& voters) const;

  const CoordinatorOptions& options_;
  const Roster& roster_;
  Electorates electorates_;
  uint64_t told_at_ = 0;  // The epoch in which members were told of all electorates.
  std::set<uint64_t> left_;
  bool is_log_forgotten_ = false;
};

}  // namespace net
