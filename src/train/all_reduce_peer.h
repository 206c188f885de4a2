// What the processes of bench_all_reduce() do, and the memory that they share.
#pragma once

#include <array>
#include <cstdint>
#include <pthread.h>
#include <vector>

#include "base/hash.h"
#include "net/message.h"
#include "train/bench_all_reduce.h"
#include "train/plain_transfer.h"

namespace train {

inline constexpr int64_t kRepetitionsMax = 1000;

// Anonymous memory that is there before the processes are, all bits 0 at first; whoever writes has
// a part of its own, and barriers say when it may be read.
struct BenchBoard {
  struct Round {
    double seconds = 0, exposed_seconds = 0, plain_seconds = 0;
    int64_t bytes_sent = 0;
    base::Digest digest;
    net::PlanKind plan = net::PlanKind::kDirect;
    double estimated_seconds = 0;
  };
  struct Peer {
    std::array<Round, 1 + kRepetitionsMax> rounds;  // The first is not timed.
    int64_t bytes_before_rounds = 0, peak_bytes = 0;
    double loop_seconds = 0, worker_seconds = 0;  // Processor time of the timed rounds.
    double relative_rms_error = 0;                // Of peer 0.
  };

  pthread_barrier_t all;    // Peers and coordinator.
  pthread_barrier_t peers;  // Peers alone.
  uint16_t coordinator_port = 0;
  std::array<Peer, net::kMembersMax> peer;
};

int64_t bench_elements(const AllReduceBenchOptions& options);
// Encoded contribution of a peer.
int64_t bench_encoded_bytes(const AllReduceBenchOptions& options);

// Puts its port on the board and serves until the process is killed.
[[noreturn]] void run_bench_coordinator(const AllReduceBenchOptions& options,
                                        const std::string& host, BenchBoard& board);
// All repetitions of one peer. `listeners` has one per peer, for the plain transfers. Throws
// resource_lost.
void run_bench_peer(const AllReduceBenchOptions& options, int64_t self,
                    const std::string& coordinator_host, const std::vector<Listener>& listeners,
                    BenchBoard& board);

}  // namespace train
