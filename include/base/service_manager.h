// The service manager that has started the process, where it wants to hear of it: the datagrams of
// sd_notify(3), written here because they are a line of text on a socket, and libsystemd would be a
// dependency of every container.
#pragma once

#include <chrono>
#include <string>

namespace base {

class ServiceManager {
 public:
  // From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, as systemd sets them.
  static ServiceManager of_environment();
  // Nobody: nothing is said.
  ServiceManager() = default;

  bool is_there() const { return !address_.empty(); }
  // How long it bears silence; 0: for ever.
  std::chrono::microseconds watchdog() const { return watchdog_; }
  // Lines of NAME=value. Does not block, and what cannot be said is not.
  void say(const std::string& lines) const;

 private:
  std::string address_;  // A path, or "@name" for one that is in no file system.
  std::chrono::microseconds watchdog_{0};
};

}  // namespace base
