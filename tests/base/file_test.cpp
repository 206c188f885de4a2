// Files on the real disk: round trips, messages, and that a crash at any moment leaves the old file
// or the new one.
#include "base/file.h"

#include <cstring>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes_of.h"
#include "support/catch.h"
#include "support/fault_storage.h"
#include "support/temporary_folder.h"

using base::ExitCode;
using test::FaultMode;
using test::TemporaryFolder;

namespace {

std::string text_of(const base::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// Requires that `action` throws a base::Error of this kind whose message has `part`.
template <class Action>
void require_error(ExitCode code, const std::string& part, const Action& action) {
  try {
    action();
  } catch (const base::Error& error) {
    CAPTURE(std::string(error.what()));
    REQUIRE(error.code() == code);
    REQUIRE(std::string(error.what()).find(part) != std::string::npos);
    return;
  }
  FAIL("no exception");
}

}  // namespace

TEST_CASE("What is written piece by piece is read and mapped whole", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  const std::string path = folder.file("a");
  std::string expected;
  {
    const auto file = disk->create(path);
    for (int i = 0; i < 3000; ++i) {
      const std::string piece(size_t(i % 1000), char('a' + i % 26));
      file->write(bytes_of(piece));
      expected += piece;
    }
    REQUIRE(!disk->exists(path));
    file->commit();
  }
  REQUIRE(disk->exists(path));
  REQUIRE(disk->read_text(path) == expected);  // More than one block of the reader.
  REQUIRE(text_of(*disk->map(path)) == expected);
  REQUIRE(disk->list(folder.path()) == std::vector<std::string>{"a"});
}

TEST_CASE("A file without commit() leaves nothing and changes nothing", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  disk->write_atomically(folder.file("a"), std::string("old"));
  { disk->create(folder.file("a"))->write(bytes_of("new")); }
  REQUIRE(disk->read_text(folder.file("a")) == "old");
  REQUIRE(disk->list(folder.path()) == std::vector<std::string>{"a"});
}

TEST_CASE("An empty file maps to an empty span", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  disk->write_atomically(folder.file("empty"), std::string());
  REQUIRE(disk->map(folder.file("empty"))->bytes().empty());
  REQUIRE(disk->read_text(folder.file("empty")).empty());
}

TEST_CASE("A mapping outlives the removal of its file", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  disk->write_atomically(folder.file("a"), std::string("bytes"));
  const auto file = disk->map(folder.file("a"));
  disk->remove_all(folder.file("a"));
  REQUIRE(text_of(*file) == "bytes");
}

TEST_CASE("Folders are made, listed, renamed and removed", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  disk->make_directories(folder.file("x/y/z"));
  disk->make_directories(folder.file("x/y/z"));  // There already is fine.
  disk->write_atomically(folder.file("x/b"), std::string("b"));
  disk->write_atomically(folder.file("x/a"), std::string("a"));
  disk->sync_directory(folder.file("x"));
  REQUIRE(disk->list(folder.file("x")) == std::vector<std::string>{"a", "b", "y"});
  disk->rename(folder.file("x/a"), folder.file("x/b"));
  REQUIRE(disk->read_text(folder.file("x/b")) == "a");
  disk->rename(folder.file("x"), folder.file("renamed"));
  REQUIRE(disk->list(folder.file("x")).empty());
  disk->remove_all(folder.file("renamed"));
  disk->remove_all(folder.file("renamed"));  // Absent is fine.
  REQUIRE(disk->list(folder.path()).empty());
}

TEST_CASE("What cannot be read is bad input and names the path", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  const std::string missing = folder.file("missing");
  require_error(ExitCode::kBadInput, missing + ": No such file", [&] { disk->map(missing); });
  require_error(ExitCode::kBadInput, missing + ": No such file", [&] { disk->read_text(missing); });
  require_error(ExitCode::kBadInput, folder.path(), [&] { disk->map(folder.path()); });
  require_error(ExitCode::kBadInput, folder.path(), [&] { disk->read_text(folder.path()); });
}

TEST_CASE("A machine that cannot read a file says nothing about the file", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  const std::string path = folder.file("a");
  disk->write_atomically(path, std::string("whole"));
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = limit.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  const auto code = ExitCode::kResourceLost;
  require_error(code, path + ": Too many open files", [&] { disk->map(path); });
  require_error(code, path + ": Too many open files", [&] { disk->read_text(path); });
  require_error(code, folder.path() + ": Too many open files", [&] { disk->list(folder.path()); });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  REQUIRE(disk->read_text(path) == "whole");
}

TEST_CASE("What cannot be written is a lost resource and names the path", "[file]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  const std::string inside_file = folder.file("a/b");
  disk->write_atomically(folder.file("a"), std::string("not a folder"));
  const auto code = ExitCode::kResourceLost;
  require_error(code, inside_file, [&] { disk->create(inside_file); });
  require_error(code, inside_file, [&] { disk->make_directories(inside_file); });
  require_error(code, inside_file, [&] { disk->rename(inside_file, folder.file("c")); });
  require_error(code, inside_file, [&] { disk->sync_directory(inside_file); });
}

TEST_CASE("A full disk is a lost resource with a hint", "[file]") {
  if (::access("/dev/full", W_OK) != 0) {
    WARN("skipped: this system has no /dev/full");
    return;
  }
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  // The bytes of the unfinished file go to the device that is always full.
  REQUIRE(::symlink("/dev/full", folder.file("a.partial").c_str()) == 0);
  const auto file = disk->create(folder.file("a"));
  try {
    file->write(bytes_of("bytes"));
    FAIL("no exception");
  } catch (const base::Error& error) {
    REQUIRE(error.code() == ExitCode::kResourceLost);
    REQUIRE(std::string(error.what()).find(folder.file("a")) != std::string::npos);
    REQUIRE(error.hint() == "free some space on the disk");
  }
}

TEST_CASE("A crash during an atomic write leaves the old file or the new one", "[file]") {
  const FaultMode mode = GENERATE(FaultMode::kFail, FaultMode::kTorn);
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  const std::string path = folder.file("a");
  disk->write_atomically(path, std::string("the old content"));
  const int64_t operation_count = test::with_every_fault(
      *disk, mode,
      [&](base::Storage& storage) { storage.write_atomically(path, std::string("new content")); },
      [&](int64_t fail_at) {
        const bool is_committed = fail_at == 0 || (fail_at == 3 && mode == FaultMode::kTorn);
        REQUIRE(disk->read_text(path) == (is_committed ? "new content" : "the old content"));
      });
  REQUIRE(operation_count == 3);  // create, write, commit.
  REQUIRE(disk->list(folder.path()) ==
          std::vector<std::string>{"a"});  // The last run took the garbage along.
}
