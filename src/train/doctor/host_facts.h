// What the kernel says of this machine, as numbers: gathered here, judged in host_checks.h.
#pragma once

#include <cstdint>
#include <string>

#include "train/doctor/host_memory.h"

namespace train {

struct HostFacts {
  int64_t cores = 0;         // That this process may use.
  double quota_cores = 0;    // Of its control group; 0: no bound.
  int64_t memory_nodes = 1;  // Sockets, roughly.
  HostMemory memory;
  int64_t descriptors = 0;        // Files and sockets that a process may open.
  int64_t receive_bytes_max = 0;  // That TCP may make a socket's buffer itself; 0: unknown.
  int64_t send_bytes_max = 0;
  std::string congestion_controls;   // "reno cubic bbr"; empty: unknown.
  int64_t shared_memory_bytes = -1;  // Of /dev/shm; -1: there is none.
  int64_t unix_seconds = 0;
  bool is_clock_synchronised = true;
  bool has_nvidia_driver = false;
};

// `root` stands before all paths, for tests.
HostFacts gather_host_facts(const std::string& root = "");

// Megabytes per second at which 64 MiB are written to `folder` and are really there; 0: it cannot
// be written. The file is removed.
double measure_disk_speed(const std::string& folder);

}  // namespace train
