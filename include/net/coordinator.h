// The role that admits members, opens rounds and commits them. It never carries tensors, and its
// state is small: who is a member, which version and digest each fragment has, which rounds are
// open.
//
// Life of a member:   Hello -> Welcome -> [waits for the start] -> CatchUp -> Synced -> Start
// (active) ... Leave or death. Life of a round:    Ready* -> Open -> Done* -> Commit, with Reown in
// between when a member falls out.
//
// - Start. The first members wait until `start_members` are there, or `start_grace` has passed
//   since the first one with at least `members_min`. The state in force is then the newest version
//   that any of them has (per fragment; among equal versions the digest of the majority, ties to
//   the lowest peer id): a fresh node never becomes the truth where a lineage exists. A member that
//   comes later with a newer version puts it in force. When nobody is left who has the state, all
//   start anew; if they have only parts of it, they are sent away to their checkpoints after
//   start_grace.
// - A round of a fragment opens when all active members are ready (but for those who entered the
// run
//   at its step), or `ready_grace` after members_min of them were. All active members whose state
//   is current receive the result, also those that become active while it is open; those that were
//   ready contribute.
// - A member that dies (link closed, or silent for `dead_after`), or stalls a round for
//   `stall_after` (the one that most others wait for, by heartbeats; or, if there is none, one that
//   lacks results and does not move), is excluded from the open rounds: Reown. Each round goes on
//   with the rest.
// - A round commits when every live receiver has said Done with one digest. Receivers that have not
//   when `round_timeout` is over, or whose digest is in the minority, are left behind and sent
//   CatchUp; at least members_min contributors must agree.
// - After each commit members report the digest of their new state (Applied). The majority's
//   becomes the state in force; others are sent CatchUp.
// - In a run that fails over (net/coordinator/electors.h): rounds open and commit only while a
// quorum
//   of the last members follows this coordinator; without one for `dead_after` it sends the others
//   away. Where members come from another coordinator, it begins as soon as a quorum of their last
//   list is here, and what that one may have committed, it commits.
// - Samples of the training data are handed out in the order of the run's one stream, to whichever
//   active member asks. A coordinator that starts goes on behind the largest number that those who
//   hold the state in force have heard; what a member with a newer state has heard counts with it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/incident.h"
#include "net/machine.h"
#include "net/run_log.h"

namespace net {

struct CoordinatorOptions {
  std::string run_name;
  base::Digest config;  // Members must show the same.
  int64_t fragment_count = 1;
  std::vector<int64_t> chunk_counts;  // Per fragment.
  std::string shared_config;          // What `config` is the digest of; told to whom it rejects.
  uint64_t steps_total = 0;           // 0: endless.
  uint64_t inner_steps = 0;           // Of a fragment, between its rounds; 0: steps are believed.
  int64_t tokens_per_step = 0;        // Of a node with this config; 0: weights are believed.
  // The operator's word that whoever comes with a newer state has the right one.
  bool adopt_newer = false;
  // Above that of every earlier coordinator of the run, e.g. seconds since 1970. Members that knew
  // one raise it, but they may come too late.
  uint32_t term = 1;
  // Which coordinator this is, of all there could be; 0: a number is drawn.
  uint64_t identity = 0;
  // Another coordinator may take the run over when this one is lost, so that each needs a quorum of
  // the last members: see docs/rounds.md. False: this one decides with whoever is there.
  bool fail_over = false;
  // The run's configured address, if that is not here: it is told where the run goes on.
  std::optional<Endpoint> home;
  std::string tie_breaker;  // The name of a node. With it, half of the members are a quorum.
  RunLog log;               // What the process before this one has kept.
  KeepLog keep_log;         // May be empty.
  // How rounds' chunks come together: net/exchange/plan.h. Auto: as what is known of the links
  // says.
  enum class Plan { kAuto, kDirect, kTwoLevel, kRing };
  Plan plan = Plan::kDirect;
  // Per fragment: what a contribution and the results of all chunks have. None: nothing is
  // estimated, and auto is direct.
  struct RoundBytes {
    int64_t contribution = 0, result = 0;
  };
  std::vector<RoundBytes> round_bytes;
  // How parts of a sum are held against each other, which auto keeps: lengths need several parts in
  // a sum, so it takes no ring; elements need all.
  enum class Guard { kNone, kLengths, kElements };
  Guard guard = Guard::kNone;
  int64_t start_members = 1;
  int64_t members_min = 1;  // Below it no round opens.
  Duration start_grace = std::chrono::seconds(120);
  Duration ready_grace = std::chrono::seconds(30);
  Duration round_timeout = std::chrono::seconds(300);
  Duration stall_after = std::chrono::seconds(30);
  Duration heartbeat_interval = std::chrono::seconds(1);
  Duration dead_after = std::chrono::seconds(15);
  // In a run with a list of keys: what the host's links are held against. Members are told at once
  // what changes in it.
  std::shared_ptr<const AllowedKeys> allowed;
  OnIncident on_incident;  // Nodes that are rejected, leave, are lost or put out of a round.
};

// What happened, for logs, metrics and tests.
struct CoordinatorReport {
  uint64_t epoch = 0;
  struct Member {
    PeerId peer = kNobody;
    std::string name;
    bool active = false;
    uint64_t step = 0;
    float loss = 0;
  };
  std::vector<Member> members;
  std::vector<FragmentState> states;
  uint64_t samples = 0;  // Of the run's data, handed out.
  int64_t rounds_committed = 0;
  int64_t members_joined = 0;  // Ever became active.
  int64_t members_lost = 0;    // Died, not left.
  // Everybody who was ever active has left with kDoneReason, and nobody is connected. Nodes that
  // died are waited for until start_grace has passed.
  bool finished = false;
};

class Coordinator : public Machine {
 public:
  static std::unique_ptr<Coordinator> create(const CoordinatorOptions& options);
  virtual CoordinatorReport report() const = 0;
  // Members follow it, or wait here for the start.
  virtual bool is_coordinating() const = 0;
  // Whoever waits here for the start is told that it is somewhere else.
  virtual void redirect(const std::vector<Redirect>& places, Instant now, Outbox& out) = 0;
  // Its process ends. It goes on until those that stay can go on without it, then sends them away.
  virtual void retire(Instant now, Outbox& out) = 0;
};

}  // namespace net
