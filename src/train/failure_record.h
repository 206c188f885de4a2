// What a node remembers, across its restarts, of the last time it diverged: `failure.json` in the
// run directory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/file.h"

namespace train {

struct FailureRecord {
  int64_t step = 0;         // At which training ended.
  int64_t checkpoint = -1;  // The step of the checkpoint that came before; -1: there was none.
  int64_t times = 0;        // In a row, at this step and from this checkpoint.
};

// Nothing if there is none, or none that can be understood.
std::optional<FailureRecord> read_failure(base::Storage& storage, const std::string& run_directory);

// Counts a failure at `step` after `checkpoint`. An error of the disk is logged: it must not take
// the place of the failure.
void note_failure(base::Storage& storage, const std::string& run_directory, int64_t step,
                  int64_t checkpoint);

}  // namespace train
