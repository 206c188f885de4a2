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
  void close_ports();
  void later(Duration delay, std::function<void()> call);
  void attend();
  void strike();
  bool may_crash();
  void crash(HostId node, Duration lasts, bool is_allowed = false);
  void spring(HostId from, HostId to, const Message& message);
  void split(Duration lasts);
  void calm();
  std::string story();

  base::Random random_;
  HostId node_count_ = 0;
  Cluster cluster_;
  bool is_over_ = false;
  MessageType trap_ = MessageType::kDataHello;
  int64_t trap_countdown_ = 0;
  int64_t crash_count_ = 0;
  std::set<HostId> leaving_;
};

}  // namespace net
