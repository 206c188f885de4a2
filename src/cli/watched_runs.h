// Run directories that are read, also while other processes write them.
#pragma once

#include <string>
#include <vector>

#include "observe/board.h"
#include "observe/metrics_tail.h"

namespace cli {

struct WatchedRun {
  std::string directory;
  observe::Board board;
};

class WatchedRuns {
 public:
  // Of nodes, or of a coordinator (which has incidents alone), or files of such lines.
  explicit WatchedRuns(const std::vector<std::string>& directories);

  // Reads what has come. Whether there was anything. Throws bad_input if a file is not there,
  // unless it may still come.
  bool refresh(bool may_come = false);
  const std::vector<WatchedRun>& list() const { return runs_; }

 private:
  std::vector<WatchedRun> runs_;
  std::vector<observe::MetricsTail> tails_;  // Of the runs, in their order.
};

}  // namespace cli
