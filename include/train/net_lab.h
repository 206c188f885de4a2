// A small internet inside one machine, to measure and rehearse with: each node has a network
// namespace of its own, and every packet between them goes through this process, which holds it up
// as a line of a given rate and length would, and loses some.
//
// Each node has one line, which limits what it sends, with a queue in front; what does not fit in
// is lost. Nodes see TUN devices. Nothing stays behind when the process ends, however it ends.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace train {

struct NetLabOptions {
  int64_t nodes = 2;         // At most 200.
  double rate_mbit = 0;      // Of each node's line, IP headers included; 0: any.
  double round_trip_ms = 0;  // Between any two nodes, beside what queues add.
  double loss = 0;           // Share of packets, in each direction.
  // Nodes lie in so many regions by turns. What leaves a region goes over a line that its nodes
  // share, and takes longer.
  int64_t regions = 1;
  double region_rate_mbit = 0;      // 0: any.
  double region_round_trip_ms = 0;  // On top.
  double queue_seconds = 0.05;      // What a queue holds, at the line's rate.
  uint64_t seed = 1;                // Of what is lost.
};

class NetLab {
 public:
  // Makes the namespaces; a Failure says why this process may not.
  static base::Result<std::unique_ptr<NetLab>> create(const NetLabOptions& options);
  virtual ~NetLab() = default;  // Ends the thread; the namespaces go with their last process.

  virtual std::string address(int64_t node) const = 0;
  // Moves the calling thread, and what it will start, into a node's namespace, for good. Sockets
  // stay where they were made.
  virtual void enter(int64_t node) = 0;
  // Calls `body` there, in a thread of its own; what it throws comes here.
  virtual void inside(int64_t node, const std::function<void()>& body) = 0;
  // From now on a thread of this process carries packets. Not before the last fork().
  virtual void start() = 0;

  // Packets; one may be many that lie together.
  struct Counts {
    int64_t carried = 0;
    int64_t lost = 0;        // By `loss`.
    int64_t overflowed = 0;  // A queue was full.
  };
  virtual Counts counts() const = 0;
};

// Runs a command once per node, each in its node with its number in the environment as
// ATOLL_LAB_NODE; node i has the address 10.77.0.(i + 1). Returns when all have ended well; throws
// resource_lost as soon as one has not, or where there can be no lab. Must be called before the
// process has threads.
void run_in_lab(const NetLabOptions& options, const std::vector<std::string>& command);

}  // namespace train
