// Boards as a table for a terminal: a column per run.
#pragma once

#include <string>
#include <vector>

#include "cli/watched_runs.h"

namespace cli {

// Lines, each with its end. `now`: seconds since 1970; `width`: columns of the terminal, which
// lines do not exceed. Control characters in names and reasons, which other machines chose, are
// replaced.
std::string status_table(const std::vector<WatchedRun>& runs, double now, size_t width);

}  // namespace cli
