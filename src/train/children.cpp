#include "train/children.h"

#include <cerrno>
#include <csignal>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

namespace train {
namespace {

base::ExitCode run(const std::function<void()>& body) {
  try {
    body();
    return base::ExitCode::kDone;
  } catch (const std::exception& error) {
    base::log_error("{}", error.what());
    return base::ExitCode::kResourceLost;
  }
}

}  // namespace

Children::~Children() {
  for (const auto& [pid, name] : running_) kill(pid, SIGKILL);
  for (const auto& [pid, name] : running_) waitpid(pid, nullptr, 0);
}

void Children::start(const std::string& name, const std::function<void()>& body) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw base::resource_lost(fmt::format("{} cannot be started", name));
  if (pid > 0) {
    running_[pid] = name;
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(int(base::ExitCode::kResourceLost));
  base::configure_log({.prefix = name, .file = {}, .stderr_level = base::LogLevel::kWarning});
  _exit(int(run(body)));
}

void Children::wait(int64_t count) {
  while (count > 0) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0 && errno == EINTR) continue;
    const auto child = running_.find(pid);
    CHECK(child != running_.end(), "{} is not ours", pid);
    const std::string name = child->second;
    running_.erase(child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
      throw base::resource_lost(fmt::format("{} failed", name));
    --count;
  }
}

}  // namespace train
