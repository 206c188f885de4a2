#include "base/service_manager.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace base {
namespace {

int64_t number_of_environment(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return 0;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), number);
  return error == std::errc() && *end == 0 ? number : 0;
}

}  // namespace

ServiceManager ServiceManager::of_environment() {
  ServiceManager manager;
  const char* const address = std::getenv("NOTIFY_SOCKET");
  const bool is_address = address != nullptr && (*address == '/' || *address == '@') &&
                          address[1] != 0 && std::strlen(address) < sizeof(sockaddr_un::sun_path);
  if (!is_address) return manager;
  manager.address_ = address;
  const int64_t pid = number_of_environment("WATCHDOG_PID");
  if (pid == 0 || pid == int64_t{getpid()}) {
    manager.watchdog_ =
        std::chrono::microseconds(std::max<int64_t>(0, number_of_environment("WATCHDOG_USEC")));
  }
  return manager;
}

void ServiceManager::say(const std::string& lines) const {
  if (!is_there()) return;
  const int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());
  if (address_[0] == '@') to.sun_path[0] = 0;
  const auto byte_count = socklen_t(offsetof(sockaddr_un, sun_path) + address_.size());
  sendto(descriptor, lines.data(), lines.size(), MSG_NOSIGNAL,
         reinterpret_cast<const sockaddr*>(&to), byte_count);
  close(descriptor);
}

}  // namespace base
