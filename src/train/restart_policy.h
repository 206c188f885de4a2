// When a node that has ended is started again, and after what pause. Pure: time comes in as
// seconds.
#pragma once

#include <cstdint>
#include <string>

namespace train {

struct RestartOptions {
  int64_t restarts_max = 20;  // In a row: a node that has run for a while begins to count anew.
  double pause_seconds = 1;   // Before the first one; each further one in a row doubles it.
  double pause_seconds_max = 60;
  double steady_seconds = 600;  // Who has run for so long was well.
};

// How a process ended: by itself, or (signal not 0) by a signal.
struct ProcessEnd {
  int exit_code = 0;
  int signal = 0;
  std::string text() const;  // "exit code 3", "signal 9 (Killed)"
};

class RestartPolicy {
 public:
  explicit RestartPolicy(const RestartOptions& options) : options_(options) {}

  struct Decision {
    bool is_restart = false;
    double pause_seconds = 0;
    std::string why;  // For the log.
  };
  // A lost resource (exit code 3), and SIGKILL, which is what the kernel does where memory is out,
  // are worth another try; bad input and bugs would come again.
  Decision ended(const ProcessEnd& end, double ran_seconds);

  int64_t restarts() const { return restarts_; }  // In all.

 private:
  const RestartOptions options_;
  int64_t restarts_ = 0, in_a_row_ = 0;
};

}  // namespace train
