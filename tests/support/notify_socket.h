// A service manager's end of sd_notify(3), for tests.
#pragma once

#include <chrono>
#include <cstdlib>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "base/service_manager.h"
#include "support/temporary_folder.h"

namespace test {

class NotifySocket {
 public:
  NotifySocket() : path_(folder_.file("notify")) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    bind(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  ~NotifySocket() {
    close(descriptor_);
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) unsetenv(name);
  }
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  base::ServiceManager manager(std::chrono::microseconds watchdog = {}) const {
    setenv("NOTIFY_SOCKET", path_.c_str(), 1);
    setenv("WATCHDOG_USEC", std::to_string(watchdog.count()).c_str(), 1);
    return base::ServiceManager::of_environment();
  }

  // What was said since the last call, a text for each datagram. A datagram on a local socket is
  // there as soon as it was sent.
  std::vector<std::string> said() const {
    std::vector<std::string> all;
    char buffer[4096];
    for (ssize_t count = 0; (count = recv(descriptor_, buffer, sizeof(buffer), MSG_DONTWAIT)) >= 0;)
      all.emplace_back(buffer, size_t(count));
    return all;
  }
  const std::string& path() const { return path_; }

 private:
  TemporaryFolder folder_;
  const std::string path_;
  const int descriptor_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
};

}  // namespace test
