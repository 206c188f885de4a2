// `atoll doctor`: is this machine fit to be a node, and can it reach the run? Nothing is trained;
// what is written to the disk is removed again.
#pragma once

#include <optional>

#include "base/file.h"
#include "train/check.h"
#include "train/run_config.h"

namespace train {

struct DoctorOptions {
  // Of the node's line; 0: not known, and nothing is said of rounds over it.
  double rate_mbit = 0;
  int64_t nodes = 0;  // 0: swarm.start_members.
  // Let the coordinator dial our port: it then takes us for a node that joins, for a moment.
  bool dial_back = false;
};

// Without a config: what any run needs. Throws only for bugs; what cannot be found out is a line.
Checks examine(const std::optional<RunConfig>& config, base::Storage& storage,
               const DoctorOptions& options);

}  // namespace train
