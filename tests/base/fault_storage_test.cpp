// The fault injector itself: it counts, crashes once and for all, and leaves the garbage that a
// dead process leaves.
#include "support/fault_storage.h"

#include "base/bytes_of.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using test::FaultMode;
using test::FaultStorage;
using test::TemporaryFolder;

namespace {

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("Without a fault everything goes through and is counted", "[fault]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  FaultStorage storage(*disk, 0, FaultMode::kFail);
  storage.make_directories(folder.file("x"));
  storage.write_atomically(folder.file("x/a"), std::string("a"));  // create, write, commit
  storage.rename(folder.file("x/a"), folder.file("x/b"));
  storage.sync_directory(folder.file("x"));
  REQUIRE(storage.read_text(folder.file("x/b")) == "a");
  REQUIRE(storage.list(folder.file("x")) == Names{"b"});
  REQUIRE(storage.map(folder.file("x/b"))->bytes().size() == 1);
  storage.remove_all(folder.file("x"));
  REQUIRE(!storage.exists(folder.file("x")));
  REQUIRE(storage.operation_count() == 7);
  REQUIRE(!storage.has_crashed());
}

TEST_CASE("After the crash nothing is written any more", "[fault]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  FaultStorage storage(*disk, 1, FaultMode::kFail);
  REQUIRE_THROWS_AS(storage.create(folder.file("a")), base::Error);
  REQUIRE(storage.has_crashed());
  REQUIRE_THROWS_AS(storage.create(folder.file("b")), base::Error);
  REQUIRE_THROWS_AS(storage.make_directories(folder.file("c")), base::Error);
  REQUIRE_THROWS_AS(storage.remove_all(folder.path()), base::Error);
  REQUIRE(disk->list(folder.path()).empty());
}

TEST_CASE("Unfinished files keep lying there after a crash", "[fault]") {
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  FaultStorage storage(*disk, 4, FaultMode::kTorn);
  {
    const auto first = storage.create(folder.file("first"));
    first->write(bytes_of("12345678"));
    const auto second = storage.create(folder.file("second"));
    REQUIRE_THROWS_AS(second->write(bytes_of("abcdefgh")), base::Error);
    REQUIRE_THROWS_AS(first->commit(), base::Error);
  }
  REQUIRE(disk->list(folder.path()) == Names{"first.partial", "second.partial"});
  REQUIRE(disk->read_text(folder.file("first.partial")) == "12345678");
  REQUIRE(disk->read_text(folder.file("second.partial")) == "abcd");
}

TEST_CASE("A torn operation has happened, a failed one has not", "[fault]") {
  const FaultMode mode = GENERATE(FaultMode::kFail, FaultMode::kTorn);
  const TemporaryFolder folder;
  const auto disk = base::make_disk_storage();
  disk->make_directories(folder.file("x"));
  for (const char* name : {"a", "b", "c"})
    disk->write_atomically(folder.file("x/") + name, std::string());
  const bool is_torn = mode == FaultMode::kTorn;
  SECTION("commit") {
    FaultStorage storage(*disk, 3, mode);
    REQUIRE_THROWS_AS(storage.write_atomically(folder.file("y"), std::string("y")), base::Error);
    REQUIRE(disk->exists(folder.file("y")) == is_torn);
    REQUIRE(disk->exists(folder.file("y.partial")) == !is_torn);
  }
  SECTION("rename") {
    FaultStorage storage(*disk, 1, mode);
    REQUIRE_THROWS_AS(storage.rename(folder.file("x/a"), folder.file("x/z")), base::Error);
    REQUIRE(disk->exists(folder.file("x/z")) == is_torn);
  }
  SECTION("remove_all") {
    FaultStorage storage(*disk, 1, mode);
    REQUIRE_THROWS_AS(storage.remove_all(folder.file("x")), base::Error);
    REQUIRE(disk->list(folder.file("x")) == (is_torn ? Names{"c"} : Names{"a", "b", "c"}));
  }
}
