#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "train/children.h"
#include "train/net_lab.h"

namespace train {
namespace {

[[noreturn]] void become(const std::vector<std::string>& command, int64_t node) {
  setenv("ATOLL_LAB_NODE", std::to_string(node).c_str(), 1);
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  throw base::bad_input(fmt::format("{}: {}", command[0], std::strerror(errno)));
}

}  // namespace

void run_in_lab(const NetLabOptions& options, const std::vector<std::string>& command) {
  const auto lab = NetLab::create(options);
  if (!lab) {
    throw base::resource_lost("no lab can be made here: " + lab.reason(),
                              "it takes root and /dev/net/tun");
  }
  Children children;
  for (int64_t node = 0; node < options.nodes; ++node) {
    children.start(fmt::format("node {}", node), [&] {
      (*lab)->enter(node);
      become(command, node);
    });
  }
  (*lab)->start();
  children.wait(options.nodes);
}

}  // namespace train
