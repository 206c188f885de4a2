// What a service manager hears when, on a clock of the test.
#include "train/service_watch.h"

#include "support/catch.h"
#include "support/notify_socket.h"

namespace {

using std::chrono::seconds;
using Said = std::vector<std::string>;

struct WatchRig {
  explicit WatchRig(std::chrono::microseconds watchdog)
      : watch(socket.manager(watchdog), [this] { return now; }) {}
  test::NotifySocket socket;
  train::ServiceWatch::Clock::time_point now{};
  train::ServiceWatch watch;
};

}  // namespace

TEST_CASE(
    "ServiceWatch: progress is said four times in the watchdog's time, however much there is") {
  WatchRig rig(seconds(40));
  for (int i = 0; i < 100; ++i) rig.watch.alive();
  REQUIRE(rig.socket.said() == Said{"WATCHDOG=1"});
  rig.now += seconds(9);
  rig.watch.alive();
  REQUIRE(rig.socket.said().empty());
  rig.now += seconds(1);
  rig.watch.alive();
  REQUIRE(rig.socket.said() == Said{"WATCHDOG=1"});
  // Time alone says nothing.
  rig.now += seconds(1000);
  REQUIRE(rig.socket.said().empty());
}

TEST_CASE("ServiceWatch: ready, and what it does, once a second and on one line") {
  WatchRig rig(seconds(0));
  rig.watch.ready("joining");
  REQUIRE(rig.socket.said() == Said{"READY=1\nSTATUS=joining"});
  rig.watch.status("step 1");
  rig.watch.status("step 2");
  rig.now += seconds(1);
  rig.watch.status("step 3\nREADY=0");
  REQUIRE(rig.socket.said() == Said{"STATUS=step 1", "STATUS=step 3 READY=0"});
  rig.watch.alive();  // There is no watchdog.
  REQUIRE(rig.socket.said().empty());
}

TEST_CASE("ServiceWatch: progress prolongs a stop") {
  WatchRig rig(seconds(600));
  rig.watch.alive();
  rig.socket.said();
  rig.watch.stopping();
  rig.watch.stopping();
  const std::string prolonged = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=120000000";
  REQUIRE(rig.socket.said() == Said{"STOPPING=1\nSTATUS=saving and leaving", prolonged});
  rig.now += seconds(1);
  rig.watch.alive();
  REQUIRE(rig.socket.said() == Said{prolonged});
}

TEST_CASE("WatchedStorage: what is written is progress, and arrives") {
  WatchRig rig(seconds(4));
  const test::TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  train::WatchedStorage storage(*disk, rig.watch);
  const auto file = storage.create(folder.file("a"));
  const std::string text = "abc";
  for (int i = 0; i < 3; ++i) {
    file->write(std::as_bytes(std::span(text)));
    rig.now += seconds(1);
  }
  REQUIRE(rig.socket.said() == Said(3, "WATCHDOG=1"));
  file->commit();
  REQUIRE(rig.socket.said() == Said{"WATCHDOG=1"});
  REQUIRE(storage.read_text(folder.file("a")) == "abcabcabc");
}
