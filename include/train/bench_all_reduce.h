// `atoll bench allreduce`: how long a round takes from its opening to its commit, with real
// processes, sockets and codec, next to what the line could do.
#pragma once

#include <cstdint>
#include <string>

namespace train {

struct AllReduceBenchOptions {
  int64_t peers = 4;
  double mib = 64;  // Of fp32 parameters that are synchronised, in one fragment.
  std::string codec = "int8";
  int64_t repetitions = 5;  // Timed rounds, after one that is not; medians count.
  // Of each peer's line, in each direction; 0: whatever the machine carries.
  double rate_mbit = 0;
  double round_trip_ms = 0;
  double loss = 0;  // Share of packets.
  // As in NetLabOptions. The coordinator lies in the first region.
  int64_t regions = 1;
  double region_rate_mbit = 0;
  double region_round_trip_ms = 0;
  std::string plan = "direct";  // As swarm.plan.
  bool is_plain = false;        // Without TLS.
};

struct AllReduceBenchReport {
  int64_t elements = 0;
  double seconds = 0;  // Open to commit, of the peer that was last.
  // The trainer stood still for so long, of the peer that was last: with looking at the parameters
  // before, and applying after it.
  double exposed_seconds = 0;
  // The same bytes between the same processes over plain sockets, one connection per pair and
  // direction, all at once.
  double plain_tcp_seconds = 0;
  // Payload of a peer over its rate; NaN without a rate. efficiency is its share of `seconds`.
  double ideal_seconds = 0;
  double efficiency = 0;
  // Of the mean that all applied against the exact one: RMS of the difference over RMS of the mean.
  double relative_rms_error = 0;
  int64_t bytes_sent = 0;         // By a peer in a round, headers of frames included; the most.
  int64_t peak_memory_bytes = 0;  // Of the peer that needed most.
  // Of it, what came with the rounds: beyond its parameters, outer state and libraries.
  int64_t round_memory_bytes = 0;
  // Processor time of a round at the peer that used most, over the parameters: of the thread that
  // moves the bytes, and of those that check, sum and hash.
  double loop_ns_per_parameter = 0, worker_ns_per_parameter = 0;
  std::string plan;              // Of the last round.
  double estimated_seconds = 0;  // Likewise, by the coordinator; 0: it did not know.
  // "namespaces": shaped by a lab of network namespaces; "loopback": no line was asked for, or
  // `network_problem` says why there can be none.
  std::string network;
  std::string network_problem;
  int64_t packets_overflowed = 0;  // In a queue of the lab, in all rounds and transfers.
};

// Starts the peers and their coordinator as processes of their own and waits for them. Must be
// called before the process has threads. Throws bad_input for options that make no sense,
// resource_lost if a peer fails or the peers' digests differ.
AllReduceBenchReport bench_all_reduce(const AllReduceBenchOptions& options);

}  // namespace train
