// Restarts for machines without a service manager: containers, where the node is the first process
// or one that nobody looks after.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace train {

struct SuperviseOptions {
  int64_t restarts_max = 20;  // In a row.
  double pause_seconds = 1;   // Before the first restart; each further one in a row doubles it.
};

// Runs `command` (a program and its arguments) until it ends in a way that a restart does not mend,
// and says in the log what it does. SIGTERM, SIGINT and SIGHUP are passed on, and then nothing is
// started again. As the first process of a container it also buries the dead. REQUIRES: a process
// with one thread. Throws base::Error with the command's exit code unless that was 0.
void supervise(const std::vector<std::string>& command, const SuperviseOptions& options);

// The process's own command line, without the option `flag` and without these options and their
// values.
std::vector<std::string> own_command(const std::string& flag,
                                     const std::vector<std::string>& options_with_value);

}  // namespace train
