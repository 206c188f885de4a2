// `atoll train --dry-run`: all that can be known of a run before it starts. Looks at what a start
// would look at, and refuses what it would refuse; nothing on the disk is changed, nothing is sent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "train/memory_plan.h"
#include "train/run_config.h"
#include "train/run_estimate.h"

namespace train {

struct DryRunOptions {
  int64_t nodes = 0;  // 0: swarm.start_members.
  double rate_mbit = 100;
  double round_trip_ms = 0;
  // What a step takes, or how fast a node is; 0: not given.
  double step_seconds = 0;
  double tokens_per_second = 0;
  int64_t measured_steps = 0;  // Time so many steps on this machine; 0: do not.
  // Plan for other GPUs than this machine has; 0: this machine.
  int64_t gpus = 0;
  double gib_per_gpu = 78;  // What a program finds on one of 80 GB.
  double price_per_gb = -1;
  double price_per_gpu_hour = -1;
};

struct DryRunReport {
  struct DataFacts {
    int64_t documents = 0, tokens = 0;
    double samples_per_pass = 0;
    double passes = 0;  // That the whole run of all nodes makes.
    std::string tokenizer;
  };
  struct TimeOutFact {
    std::string key;
    double seconds = 0;
    std::string from;  // "set", or "2 x swarm.dead_seconds".
  };
  int64_t parameters = 0;
  int64_t resumed_step = -1;  // Of the checkpoint that it would go on from; -1: none.
  std::vector<TimeOutFact> time_outs;
  DataFacts data;
  std::string machine;  // "this machine: 2 CPU cores", "8 GPUs of 78 GiB"
  bool is_gpu = false;
  MemoryPlan memory;
  int64_t node_memory_bytes = 0;        // Without GPUs: what all ranks and the outer state take.
  int64_t node_memory_limit_bytes = 0;  // Of the machine or container; 0: not known.
  int64_t nodes = 1;
  double rate_mbit = 0;
  double step_seconds = 0;
  std::string step_basis;  // Where that number comes from.
  double tokens_per_step = 0;
  RunEstimate estimate;
  DiskEstimate disk;
  int64_t disk_free_bytes = -1;  // -1: not known.
  std::vector<std::string> warnings;
  // Why a start would fail; empty: it would not.
  std::string refusal;
};

// Throws base::Error as a start would, but for a memory plan that does not fit, which the report
// tells.
DryRunReport dry_run(const RunConfig& config, base::Storage& storage, const DryRunOptions& options);

}  // namespace train
