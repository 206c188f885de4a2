// Runs something that kills its process, in a child. REQUIRES: no other thread that works at that
// moment; those that wait for work (the pool that libuv keeps) do not matter.
#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace test {

struct ChildEnd {
  int status;  // As waitpid() gives it.
  std::string stderr_text;

  bool was_aborted() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT; }
  bool exited_normally() const { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
};

inline ChildEnd run_in_child(const std::function<void()>& body) {
  std::array<int, 2> ends;
  if (pipe(ends.data()) != 0) throw base::resource_lost("cannot make a pipe");
  const pid_t child = fork();
  if (child < 0) throw base::resource_lost("cannot fork");
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // Not the test framework's handler.
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    body();
    _exit(0);
  }
  close(ends[1]);
  ChildEnd end{.status = 0, .stderr_text = {}};
  std::array<char, 4096> block;
  for (ssize_t count; (count = read(ends[0], block.data(), block.size())) > 0;) {
    end.stderr_text.append(block.data(), size_t(count));
  }
  close(ends[0]);
  waitpid(child, &end.status, 0);
  return end;
}

}  // namespace test
