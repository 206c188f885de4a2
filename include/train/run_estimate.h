// What a run will take, by arithmetic from its config: time, traffic, money, disk. Nothing is
// measured here; what a step takes comes from outside.
#pragma once

#include <cstdint>

#include "train/run_config.h"

namespace train {

struct EstimateCase {
  int64_t nodes = 1;
  double rate_mbit = 100;  // Of a node's line, in the direction that has less.
  double round_trip_ms = 0;
  double step_seconds = 1;
  int64_t steps_left = 0;
  // Of what a node sends; of a GPU, or of the whole node where it has none. Negative: not known.
  double price_per_gb = -1;
  double price_per_gpu_hour = -1;
  int64_t gpus_per_node = 1;
};

struct RunEstimate {
  double utilisation = 1;
  double steps_per_day = 0;
  double hours = 0;  // Until the last step.
  // Of one node, each way; 0 of a solo run, as all of the swarm.
  double gigabytes_per_day = 0;
  double floor_mbit = 0;             // Below it no overlap helps.
  double longest_round_seconds = 0;  // Over a free line.
  double exposed_seconds_per_round = 0;
  // Of one node and day, and of all nodes until the end; negative: not asked for.
  double traffic_price_per_day = -1;
  double machine_price_per_day = -1;
  double price = -1;
};

// Throws bad_input where the case does not fit the config.
RunEstimate estimate_run(const RunConfig& config, const EstimateCase& one);

struct DiskEstimate {
  int64_t checkpoint_bytes = 0;    // Without contributions in flight, and the manifest.
  int64_t hugging_face_bytes = 0;  // Of one folder for transformers; 0: none is written.
  // All that are kept, and the newest while it is written.
  int64_t needed_bytes = 0;
};
DiskEstimate estimate_disk(const RunConfig& config);

}  // namespace train
