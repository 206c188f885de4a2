// The datagrams that a service manager hears.
#include "base/service_manager.h"

#include "support/catch.h"
#include "support/notify_socket.h"

using Lines = std::vector<std::string>;

TEST_CASE("ServiceManager: without one nothing is said") {
  for (const char* address : {"", "/", "@", "relative/path"}) {
    setenv("NOTIFY_SOCKET", address, 1);
    REQUIRE_FALSE(base::ServiceManager::of_environment().is_there());
  }
  setenv("NOTIFY_SOCKET", ("/" + std::string(200, 'a')).c_str(), 1);
  REQUIRE_FALSE(base::ServiceManager::of_environment().is_there());
  unsetenv("NOTIFY_SOCKET");
  REQUIRE_FALSE(base::ServiceManager::of_environment().is_there());
  base::ServiceManager().say("READY=1");
}

TEST_CASE("ServiceManager: lines arrive as they are, a datagram for each call") {
  const test::NotifySocket socket;
  const auto manager = socket.manager();
  REQUIRE(manager.is_there());
  manager.say("READY=1\nSTATUS=ready");
  manager.say("WATCHDOG=1");
  REQUIRE(socket.said() == Lines{"READY=1\nSTATUS=ready", "WATCHDOG=1"});
}

TEST_CASE("ServiceManager: an address in no file system") {
  const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "atoll-test-" + std::to_string(getpid());
  name.copy(address.sun_path + 1, name.size());
  const auto byte_count = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  REQUIRE(bind(descriptor, reinterpret_cast<const sockaddr*>(&address), byte_count) == 0);
  setenv("NOTIFY_SOCKET", ("@" + name).c_str(), 1);
  base::ServiceManager::of_environment().say("READY=1");
  unsetenv("NOTIFY_SOCKET");
  char buffer[16];
  REQUIRE(recv(descriptor, buffer, sizeof(buffer), MSG_DONTWAIT) == 7);
  close(descriptor);
}

TEST_CASE("ServiceManager: the watchdog's time, if it is ours") {
  const test::NotifySocket socket;
  REQUIRE(socket.manager(std::chrono::seconds(30)).watchdog() == std::chrono::seconds(30));
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  REQUIRE(socket.manager(std::chrono::seconds(30)).watchdog() == std::chrono::seconds(30));
  setenv("WATCHDOG_PID", std::to_string(getpid() + 1).c_str(), 1);
  REQUIRE(socket.manager(std::chrono::seconds(30)).watchdog().count() == 0);
  unsetenv("WATCHDOG_PID");
  for (const char* nonsense : {"", "-5", "12x"}) {
    setenv("WATCHDOG_USEC", nonsense, 1);
    REQUIRE(base::ServiceManager::of_environment().watchdog().count() == 0);
  }
}
