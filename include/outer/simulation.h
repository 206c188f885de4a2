// What the outer loop will cost before anybody rents a machine: the steps and rounds of a run, with
// each node's step time and line, gone through boundary by boundary. Nothing is sent or computed.
//
// What it knows: which fragment is due at which step; that a round opens when all nodes have come
// to its step; that a node's line carries one round after another, each of its bytes once in each
// direction; that a trainer stands still only where a round is not over by the last step at which
// it may be. What it leaves out: the time to encode, sum and apply, lost packets, nodes that come,
// go or jitter.
#pragma once

#include <cstdint>
#include <vector>

#include "outer/config.h"
#include "shard/layout.h"

namespace outer {

struct SimulatedNode {
  double step_seconds = 1;
  // Bytes per second in the direction that has less: both carry the same.
  double bytes_per_second = 12.5e6;
};

struct SimulationOptions {
  // Per fragment, what all contributions or all results of one node are, encoded.
  std::vector<int64_t> contribution_bytes, result_bytes;
  int64_t inner_steps = 100;  // H
  // A fragment that is due after step t must be applied after step t + overlap_steps_max; until
  // then training goes on beside its round. 0: blocking. When it may be applied at the earliest
  // makes no difference to the time.
  int64_t overlap_steps_max = 0;
  double round_trip_seconds = 0;  // Between any two nodes, and to the coordinator.
  std::vector<SimulatedNode> nodes;
};

// The fragments, steps and bytes of a run's config; nodes and round trip are left to the caller.
SimulationOptions simulation_of(const OuterConfig& config, const shard::Layout& layout);

struct SimulationResult {
  // Share of the time in which nodes train, mean over the nodes, once the run has settled.
  double utilisation = 1;
  std::vector<double> node_utilisation;
  double exposed_seconds_per_round = 0;  // That a node stood still, mean over rounds and nodes.
  double bytes_per_day = 0;              // That a node sends, and receives as well.
  double steps_per_day = 0;              // Of each node.
  // Below it a node's line cannot keep up with the slowest node's steps, whatever the overlap; to
  // hide the exchange completely takes more where there is less overlap.
  double floor_bytes_per_second = 0;
};

// Throws bad_input unless there are nodes, with step times and rates above 0, and 0 <=
// overlap_steps_max < inner_steps where there is any overlap.
SimulationResult simulate(const SimulationOptions& options);

}  // namespace outer
