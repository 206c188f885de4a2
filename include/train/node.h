// One node, put together: `atoll train`. Reading run_node() is reading the system.
#pragma once

#include <functional>
#include <limits>
#include <string>

#include "base/file.h"
#include "train/run_config.h"

namespace train {

// What a run came to, also the `summary` line of metrics.jsonl.
struct NodeSummary {
  int64_t step = 0;
  int64_t tokens = 0;
  // Of this process's first and last evaluation; NaN, which JSON says as null, without any.
  double validation_loss_before = std::numeric_limits<double>::quiet_NaN();
  double validation_loss_after = std::numeric_limits<double>::quiet_NaN();
  int64_t skipped_steps = 0;  // Of this process: loss or gradient was not finite.
  int64_t rounds = 0;
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  std::string outer_digest;  // Of the last applied round of fragment 0; empty for solo runs.
  double seconds = 0;
  double utilisation = 1;  // Share of the training time in which no round stood in the way.
  bool finished = false;   // All steps done (not stopped by a signal).
};

// The summary's fields, as keys of an object that is open.
void write_fields(base::JsonWriter& out, const NodeSummary& summary);

// Trains until the last step, a signal (`stop_requested`), or a failure; resumes from the run
// directory if there is something to resume. A stopped run has saved a checkpoint, unless its last
// steps were not finite. A checkpoint for which the disk has no room does not end the run, but for
// the last one. Throws base::Error; until the node has been let in, that is a start that was
// refused, and nothing on the disk has changed.
NodeSummary run_node(const RunConfig& config, base::Storage& storage,
                     const std::function<bool()>& stop_requested);

}  // namespace train
