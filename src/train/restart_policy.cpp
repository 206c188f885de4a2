#include "train/restart_policy.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fmt/format.h>

#include "base/error.h"

namespace train {

std::string ProcessEnd::text() const {
  if (signal == 0) return fmt::format("exit code {}", exit_code);
  return fmt::format("signal {} ({})", signal, strsignal(signal));
}

RestartPolicy::Decision RestartPolicy::ended(const ProcessEnd& end, double ran_seconds) {
  const bool is_lost = end.signal == SIGKILL ||
                       (end.signal == 0 && end.exit_code == int(base::ExitCode::kResourceLost));
  if (!is_lost) {
    const bool is_done = end.signal == 0 && end.exit_code == 0;
    return {.why = is_done ? "it is done" : "a restart would end in the same way"};
  }
  if (ran_seconds >= options_.steady_seconds) in_a_row_ = 0;
  if (in_a_row_ >= options_.restarts_max)
    return {.why = fmt::format("it was started again {} times in a row", in_a_row_)};
  const double pause = options_.pause_seconds * std::exp2(double(std::min<int64_t>(in_a_row_, 60)));
  ++in_a_row_;
  ++restarts_;
  return {.is_restart = true,
          .pause_seconds = std::min(pause, options_.pause_seconds_max),
          .why = fmt::format("restart {} in all, {} of at most {} in a row", restarts_, in_a_row_,
                             options_.restarts_max)};
}

}  // namespace train
