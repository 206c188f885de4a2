// The list of keys as it lies on a disk, where people edit it.
#include "train/swarm_security.h"

#include "support/catch.h"
#include "support/temporary_folder.h"

using net::NodeId;
using net::NodeKey;

namespace {

constexpr int64_t kNow = 1'800'000'000;  // 2027-01-15.

NodeId id_of(uint8_t fill) {
  net::KeyBytes seed;
  seed.fill(fill);
  return NodeKey(seed).id();
}

struct ListOnDisk {
  test::TemporaryFolder folder;
  std::unique_ptr<base::Storage> storage = base::make_disk_storage();
  const std::string path = folder.file("allowed");

  void write(const std::string& text) { storage->write_atomically(path, text); }
};

}  // namespace

TEST_CASE("key list: a change is taken when it has been there twice") {
  ListOnDisk disk;
  const std::string a = id_of(1).text() + " a\n", b = id_of(2).text() + " b\n";
  disk.write(a + b);
  train::KeyListFile list(*disk.storage, disk.path, kNow);
  REQUIRE(list.allowed()->list().size() == 2);
  disk.write(a);
  list.refresh(kNow);
  REQUIRE(list.allowed()->contains(id_of(2)));
  list.refresh(kNow);
  REQUIRE(!list.allowed()->contains(id_of(2)));
  REQUIRE(list.allowed()->contains(id_of(1)));
}

TEST_CASE("key list: what is empty, no list or gone changes nothing") {
  ListOnDisk disk;
  disk.write(id_of(1).text() + " a\n");
  train::KeyListFile list(*disk.storage, disk.path, kNow);
  for (const char* text : {"", "# all are gone\n", "nonsense\n"}) {
    disk.write(text);
    for (int i = 0; i < 3; ++i) list.refresh(kNow);
    REQUIRE(list.allowed()->list() == std::vector<NodeId>{id_of(1)});
  }
  disk.storage->remove_all(disk.path);
  for (int i = 0; i < 3; ++i) list.refresh(kNow);
  REQUIRE(list.allowed()->list() == std::vector<NodeId>{id_of(1)});
}

TEST_CASE("key list: a coordinator does not start with none") {
  ListOnDisk disk;
  for (const char* text : {"", "nonsense\n"}) {
    disk.write(text);
    REQUIRE_THROWS_AS(train::KeyListFile(*disk.storage, disk.path, kNow), base::Error);
  }
}

TEST_CASE("key list: a key whose last day is over is out, though the file stays") {
  ListOnDisk disk;
  disk.write(id_of(1).text() + " a until 2027-01-15\n");
  const int64_t end = 1'800'057'600;  // date -u -d 2027-01-16 +%s
  train::KeyListFile list(*disk.storage, disk.path, kNow);
  REQUIRE(list.allowed()->contains(id_of(1)));
  list.refresh(end - 1);
  REQUIRE(list.allowed()->contains(id_of(1)));
  list.refresh(end);
  REQUIRE(list.allowed()->list().empty());
}
