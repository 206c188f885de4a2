// The lock of a folder: one process holds it, the others learn which one, and no death leaves it
// behind.
#include "base/directory_lock.h"

#include <csignal>
#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "support/catch.h"
#include "support/child_process.h"
#include "support/temporary_folder.h"

using base::DirectoryLock;

namespace {

// What another process is told that takes the lock; empty if it gets it.
std::string refusal(const std::string& directory) {
  const auto end = test::run_in_child([&] {
    try {
      DirectoryLock::take_existing(directory);
    } catch (const base::Error& error) {
      fmt::print(stderr, "{} {} {}", int(error.code()), error.what(), error.hint());
    }
  });
  REQUIRE(end.exited_normally());
  return end.stderr_text;
}

}  // namespace

TEST_CASE("A locked folder is refused with the holder's process", "[lock]") {
  const test::TemporaryFolder folder;
  auto lock = DirectoryLock::take(folder.path());
  const std::string expected =
      fmt::format("2 {} is in use by process {} one process", folder.path(), getpid());
  REQUIRE(refusal(folder.path()).starts_with(expected));
  REQUIRE(refusal(folder.path()).starts_with(expected));  // The refused one took nothing away.
  lock.reset();
  REQUIRE(refusal(folder.path()).empty());
}

TEST_CASE("A lock does not outlive its process", "[lock]") {
  const test::TemporaryFolder folder;
  const auto end = test::run_in_child([&] {
    const auto lock = DirectoryLock::take(folder.path());
    kill(getpid(), SIGKILL);
  });
  REQUIRE(WIFSIGNALED(end.status));
  REQUIRE(base::make_disk_storage()->exists(folder.file("lock")));
  REQUIRE(refusal(folder.path()).empty());
}

TEST_CASE("Taking an existing lock makes nothing", "[lock]") {
  const test::TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  REQUIRE(DirectoryLock::take_existing(folder.path()) == nullptr);
  REQUIRE(DirectoryLock::take_existing(folder.file("absent")) == nullptr);
  REQUIRE(disk->list(folder.path()).empty());
  { const auto lock = DirectoryLock::take(folder.path()); }
  REQUIRE(DirectoryLock::take_existing(folder.path()) != nullptr);
  REQUIRE(disk->list(folder.path()) == std::vector<std::string>{"lock"});
}
