// One run that fails over, and whatever happens to its nodes, from a seed: a coordinator in every
// node, crashes in chosen moments, partitions, freezes and leaves. Each version of a fragment is
// made once, follows from the one before, and is never lost; and in the end everybody gets on. What
// Trial (net/simulation/trial.h) is for one coordinator, this is for as many as there are nodes.
#pragma once

#include <set>
#include <string>

#include "net/cluster.h"

namespace net {

class Storm {
 public:
  explicit Storm(uint64_t seed);

  // To be called once. What was wrong; empty: nothing.
  std::string run();
  int64_t round_count() const { return cluster_.oracle.round_count(); }
  int64_t crash_count() const { return crash_count_; }

 private:
  uint64_t below(uint64_t bound) { return random_.below(bound); }
  bool chance(double probability) { return random_.uniform() < probability; }
  HostId any_node() { return 1 + HostId(below(uint64_t(node_count_))); }
  ClusterOptions draw(uint64_t seed);
  void draw_ports();
  void lose_all_disks();
  void later(Duration delay, std::function<void()> call);
  void attend();
  void strike();
  bool may_crash(HostId node);
  void crash(HostId node, Duration lasts, bool is_allowed = false);
  void start(HostId node, Cluster::Memory memory = Cluster::Memory::kKept);
  void spring(HostId from, HostId to, const Message& message);
  void split(Duration lasts);
  void calm();
  bool gets_on();
  void watch_end();
  std::string story();

  base::Random random_;
  // Drawn before there is a cluster.
  HostId node_count_ = 0;
  bool loses_all_disks_ = false;  // Of all nodes, once, at the same time.
  bool has_end_ = false;
  bool is_secured_ = false;
  Cluster cluster_;
  bool is_over_ = false;
  MessageType trap_ = MessageType::kDataHello;
  int64_t trap_countdown_ = 0;
  int64_t crash_count_ = 0;
  std::set<HostId> leaving_;
  std::set<HostId> finished_;  // With all steps, if the run has an end; they are not started again.
  std::set<HostId> at_end_;    // Those that had made all steps when the first one finished.
};

}  // namespace net
