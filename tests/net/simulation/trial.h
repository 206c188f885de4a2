// Runs a scenario and says whether all was well:
//
//   always           the Oracle's rules (tests/net/fake_trainer.h) and the Auditor's
//   when all faults  a majority gets on, whatever became of the others; then everybody does, and
//   are over         everybody contributes; nobody was turned away who had done nothing; what a
//                    majority had on its disks is still in the run; no work is in it twice
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/simulation/auditor.h"
#include "net/simulation/scenario.h"

namespace net {

struct Outcome {
  std::string wrong;    // Empty if all was well.
  uint64_t unseed = 0;  // Another run of the same scenario ends with the same.
  uint64_t events = 0;
  int64_t rounds = 0;
};

class Trial {
 public:
  explicit Trial(const Scenario& scenario);
  Outcome run();

 private:
  struct Lying {
    Lie lie = Lie::kWeight;
    uint64_t salt = 0;
    Instant until{};
  };
  struct Trap {  // Crashes a node in a moment of the protocol; these are short.
    MessageType type = MessageType::kOpen;
    int64_t countdown = 0;
    bool is_sender = false;
    Duration lasts{};
  };
  using Durable = std::vector<std::vector<base::Digest>>;  // Per fragment.

  World& world() { return cluster_.world; }
  HostId nodes() const { return HostId(scenario_.cluster.node_count); }
  void start();
  void apply(const Fault& fault);
  void apply_to_node(const Fault& fault);
  void apply_to_network(const Fault& fault);
  void partition(const Fault& fault);
  void block_dials(const Fault& fault);
  void heal_dials();
  void crash(HostId node, const Fault& fault);
  void restart(HostId node, Cluster::Memory memory);
  void start_lying(const Fault& fault);
  void later(Duration delay, std::function<void()> call);
  void attend();
  void attend_to(HostId node, const Stopped& stopped);

  void on_delivery(HostId from, HostId to, Message& message);
  void lie(const Lying& lying, Message& message);
  void spring(HostId from, HostId to, const Message& message);

  void end_faults();
  void take_away(HostId node);
  void bring_back(HostId node);
  bool get_on(const std::vector<HostId>& nodes);
  bool all_contribute();
  Duration patience() const;
  std::vector<HostId> nodes_but(const std::set<HostId>& absent) const;
  bool has(FaultKind kind) const;
  bool keeps_majorities() const;
  Durable durable_states();
  void check_end(const Durable& durable);
  std::string verdict();
  uint64_t unseed();

  const Scenario scenario_;
  Cluster cluster_;
  Auditor auditor_;
  bool is_over_ = false;  // No more faults.
  bool is_stuck_ = false;
  std::map<HostId, std::vector<Lying>> lies_;
  std::map<HostId, Instant> repeats_until_;
  std::vector<Trap> traps_;
  std::set<HostId> excused_;  // They have nothing to contribute, or are too slow.
  std::set<HostId> leaving_;  // They have said so, and are still there.
};

}  // namespace net
