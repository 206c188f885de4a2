#include "train/supervise.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "train/restart_policy.h"
#include "train/timing.h"

namespace train {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kPassedOn[] = {SIGTERM, SIGINT, SIGHUP};

// Signals are waited for, never handled: blocked as long as this lives, and in the child as they
// were before. A signal that the process ignores (SIGHUP under nohup) is dropped by the kernel.
class SignalWait {
 public:
  SignalWait() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGCHLD);
    for (const int signal : kPassedOn) sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, &before_);
  }
  ~SignalWait() { restore(); }
  SignalWait(const SignalWait&) = delete;
  SignalWait& operator=(const SignalWait&) = delete;

  void restore() const { sigprocmask(SIG_SETMASK, &before_, nullptr); }

  int next() const {
    int signal = 0;
    while (sigwait(&set_, &signal) != 0) {
    }
    return signal;
  }
  // 0 when the time is over.
  int next_within(double wait_seconds) const {
    const auto until = SteadyClock::now() + std::chrono::duration<double>(wait_seconds);
    while (true) {
      const std::chrono::duration<double> left = until - SteadyClock::now();
      if (left.count() <= 0) return 0;
      const timespec patience{.tv_sec = time_t(left.count()),
                              .tv_nsec = long(std::fmod(left.count(), 1) * 1e9)};
      const int signal = sigtimedwait(&set_, nullptr, &patience);
      if (signal > 0) return signal;
    }
  }

 private:
  sigset_t set_{}, before_{};
};

pid_t start_child(const std::vector<std::string>& command, const SignalWait& signals) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0)
    throw base::resource_lost(fmt::format("no process can be started: {}", strerror(errno)));
  if (pid > 0) return pid;
  // Whoever kills the supervisor means the node as well, which then saves and leaves.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(int(base::ExitCode::kResourceLost));
  signals.restore();
  execv(arguments[0], arguments.data());
  _exit(127);
}

class Supervisor {
 public:
  Supervisor(const std::vector<std::string>& command, const SuperviseOptions& options)
      : command_(command),
        what_(command.size() > 1 ? "atoll " + command[1] : "the process"),
        policy_({.restarts_max = options.restarts_max, .pause_seconds = options.pause_seconds}) {}

  ProcessEnd run() {
    while (true) {
      const auto begin = SteadyClock::now();
      const ProcessEnd end = run_once();
      if (is_stopping_) {
        base::log_info("{} has ended: {}", what_, end.text());
        return end;
      }
      const auto decision = policy_.ended(end, seconds_since(begin));
      if (!decision.is_restart) {
        base::log_info("{} has ended: {}; {}", what_, end.text(), decision.why);
        return end;
      }
      base::log_warning("{} has ended: {}; it is started again in {:.1f} s ({})", what_, end.text(),
                        decision.pause_seconds, decision.why);
      if (!pause(decision.pause_seconds)) return end;
    }
  }

 private:
  ProcessEnd run_once() {
    child_ = start_child(command_, signals_);
    base::log_info("{} runs as process {}", what_, child_);
    while (true) {
      const int signal = signals_.next();
      if (signal != SIGCHLD) {
        base::log_info("{} is passed on to {}", strsignal(signal), what_);
        is_stopping_ = true;
        kill(child_, signal);
      } else if (const auto end = bury()) {
        return *end;
      }
    }
  }

  // All that have ended: the first process of a container inherits orphans. Ours, if it is among
  // them.
  std::optional<ProcessEnd> bury() const {
    std::optional<ProcessEnd> ours;
    int status = 0;
    for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != child_) continue;
      ours = WIFSIGNALED(status) ? ProcessEnd{.signal = WTERMSIG(status)}
                                 : ProcessEnd{.exit_code = WEXITSTATUS(status)};
    }
    return ours;
  }

  // False if we shall end.
  bool pause(double pause_seconds) {
    const auto begin = SteadyClock::now();
    for (double left = pause_seconds; left > 0; left = pause_seconds - seconds_since(begin)) {
      const int signal = signals_.next_within(left);
      if (signal == SIGCHLD) bury();
      if (signal == 0 || signal == SIGCHLD) continue;
      base::log_info("{}: {} is not started again", strsignal(signal), what_);
      return false;
    }
    return true;
  }

  const std::vector<std::string>& command_;
  const std::string what_;  // "atoll train"
  const SignalWait signals_;
  RestartPolicy policy_;
  pid_t child_ = 0;
  bool is_stopping_ = false;
};

}  // namespace

void supervise(const std::vector<std::string>& command, const SuperviseOptions& options) {
  base::configure_log({.prefix = "supervisor", .file = {}});
  const ProcessEnd end = Supervisor(command, options).run();
  if (end.signal == 0 && end.exit_code == 0) return;
  const bool is_known = end.signal == 0 && end.exit_code <= int(base::ExitCode::kResourceLost);
  const auto code = is_known                ? base::ExitCode(end.exit_code)
                    : end.signal == SIGKILL ? base::ExitCode::kResourceLost
                                            : base::ExitCode::kBug;
  throw base::Error(code, fmt::format("the process has ended: {}", end.text()),
                    "what it said last stands above, and in log.txt of its run directory");
}

std::vector<std::string> own_command(const std::string& flag,
                                     const std::vector<std::string>& options_with_value) {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  // The program itself, whatever lies under its name by the next restart.
  std::vector<std::string> command = {"/proc/self/exe"};
  std::string word;
  std::getline(file, word, '\0');
  while (std::getline(file, word, '\0')) {
    if (word == flag) continue;
    const auto is_it = [&](const std::string& name) { return word == name; };
    const auto begins = [&](const std::string& name) { return word.starts_with(name + "="); };
    if (std::ranges::any_of(options_with_value, begins)) continue;
    if (std::ranges::any_of(options_with_value, is_it)) {
      std::getline(file, word, '\0');
      continue;
    }
    command.push_back(word);
  }
  return command;
}

}  // namespace train
