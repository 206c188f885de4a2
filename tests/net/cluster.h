// A coordinator and its nodes in a simulated world, with everything that can happen to them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/coordinator.h"
#include "net/fake_trainer.h"
#include "net/peer.h"
#include "net/simulator.h"

namespace net {

inline constexpr HostId kCoordinatorHost = 0;  // Nodes are 1, 2, ...

struct ClusterOptions {
  NetworkOptions network;
  TrainerOptions trainer;
  CoordinatorOptions coordinator;  // Names, digests and chunk counts are filled in.
  MemberOptions member;            // Only its limits count.
  int64_t node_count = 3;
  HostId home = kCoordinatorHost;  // Where the run's coordinator is configured to be.
  // It is configured by another address than its own, as with a name or a port map. Whoever is
  // there does not know that it is its own.
  bool has_alias = false;
  bool is_secured = false;  // Nodes prove who they are.
};
// Times that suit a round of a second.
ClusterOptions quick_cluster(uint64_t seed, int64_t node_count);

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options);

  World world;
  Oracle oracle;

  void start_all();
  // With a term above those of its predecessors; or, where its machine's clock is wrong, below.
  enum class Term { kHigher, kLower };
  void start_coordinator(Term term = Term::kHigher);
  void crash_coordinator();
  void forget_coordinators_log() { log_ = {}; }
  // What the next one is to do about a newer state.
  void set_adopt_newer(bool adopt_newer) { options_.coordinator.adopt_newer = adopt_newer; }
  Coordinator& coordinator() { return *coordinator_; }
  bool has_coordinator() const { return coordinator_ != nullptr; }

  enum class Memory { kKept, kStale, kLost };
  // With the state that it had at its last commit, or when it crashed the time before, or with
  // none.
  void start_node(HostId node, Memory memory = Memory::kKept);
  void crash_node(HostId node, bool is_silent = false);
  // Nodes whose coordinator some member has come to.
  std::vector<HostId> coordinating() const;
  // As far as it knows, it needs nobody else to commit a round.
  bool decides_alone(HostId node) const;
  bool is_running(HostId node) const { return nodes_.contains(node) && world.is_on(node); }
  FakeTrainer& node(HostId node) { return *nodes_.at(node).trainer; }
  // Of what it would begin with, were it started again.
  base::Digest disk_digest(HostId node, int64_t fragment) const;
  static Endpoint address(HostId host);
  // By which nodes are configured to find the coordinator.
  Endpoint home_address() const;
  // A node that has stopped by itself is started again, as a service manager would, if that makes
  // sense; those that are rejected stay down.
  void restart_stopped();

  // For nodes that are not like the others.
  MemberOptions member_options(HostId node) const;
  void change_member_options(HostId node, const MemberOptions& options) {
    special_[node] = options;
  }
  void forget_member_options(HostId node) { special_.erase(node); }
  // Of every life of the node.
  void set_weight(HostId node, int64_t weight_tokens) { weights_[node] = weight_tokens; }
  void set_slowness(HostId node, int64_t times) { slowness_[node] = times; }

  bool run_until(const std::function<bool()>& is_true, Duration limit);
  // All nodes that run have at least this version of every fragment.
  bool reaches(uint64_t version, Duration limit);
  bool all_active(Duration limit);
  uint64_t lowest_version() const;
  uint64_t highest_version() const;
  std::vector<HostId> running_nodes() const;
  // Empty if nothing was wrong.
  std::string violations() const;

 private:
  struct Node {
    std::unique_ptr<FakeTrainer> trainer;
    FakeTrainer::Checkpoint disk;
    FakeTrainer::Checkpoint older_disk;
    RunLog log;                                // On its disk, too.
    const Coordinator* coordinator = nullptr;  // That stands by in it.
  };

  std::unique_ptr<Member> stand_by(HostId node, const MemberOptions& options,
                                   std::unique_ptr<Member> member);

  ClusterOptions options_;
  RunLog log_;  // Of the coordinator on its own.
  std::unique_ptr<Coordinator> coordinator_;
  std::map<HostId, Node> nodes_;
  std::map<HostId, MemberOptions> special_;
  std::map<HostId, int64_t> weights_;
  std::map<HostId, int64_t> slowness_;
  uint32_t coordinator_count_ = 0;
};

}  // namespace net
