// What a machine or a container has, from copies of the kernel's files.
#include "train/doctor/host_memory.h"

#include <filesystem>
#include <fstream>

#include "base/math.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

using base::kGiB;

void put_file(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

// A machine with 16 GiB, of which 8 are available.
std::string fake_machine(const test::TemporaryFolder& folder) {
  put_file(folder.file("proc/meminfo"),
           "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n");
  return folder.path();
}

}  // namespace

TEST_CASE("HostMemory: a machine without control groups") {
  const test::TemporaryFolder folder;
  const auto memory = train::host_memory(fake_machine(folder));
  REQUIRE(memory.total_bytes == 16 * kGiB);
  REQUIRE(memory.available_bytes == 8 * kGiB);
  REQUIRE(memory.limit_bytes == 0);
  REQUIRE(memory.usable_bytes() == 16 * kGiB);
}

TEST_CASE("HostMemory: the tightest limit on the way up counts") {
  const test::TemporaryFolder folder;
  const std::string root = fake_machine(folder);
  put_file(root + "/proc/self/cgroup", "0::/a/b\n");
  put_file(root + "/sys/fs/cgroup/a/memory.max", std::to_string(4 * kGiB));
  put_file(root + "/sys/fs/cgroup/a/memory.current", std::to_string(kGiB));
  put_file(root + "/sys/fs/cgroup/a/b/memory.max", "max\n");
  const auto memory = train::host_memory(root);
  REQUIRE(memory.limit_bytes == 4 * kGiB);
  REQUIRE(memory.available_bytes == 3 * kGiB);
  REQUIRE(memory.usable_bytes() == 4 * kGiB);
}

TEST_CASE("HostMemory: a container sees its limit at the top, whatever its path says") {
  const test::TemporaryFolder folder;
  const std::string root = fake_machine(folder);
  put_file(root + "/proc/self/cgroup", "0::/../../machine/not-here\n");
  put_file(root + "/sys/fs/cgroup/memory.max", std::to_string(2 * kGiB));
  REQUIRE(train::host_memory(root).limit_bytes == 2 * kGiB);
}

TEST_CASE("HostMemory: control groups of the first version") {
  const test::TemporaryFolder folder;
  const std::string root = fake_machine(folder);
  put_file(root + "/proc/self/cgroup", "5:memory:/docker/1\n1:name=systemd:/\n");
  const std::string group = root + "/sys/fs/cgroup/memory/docker/1/";
  put_file(group + "memory.limit_in_bytes", "9223372036854771712\n");
  REQUIRE(train::host_memory(root).limit_bytes == 0);
  put_file(group + "memory.limit_in_bytes", std::to_string(kGiB));
  put_file(group + "memory.usage_in_bytes", std::to_string(kGiB / 4));
  REQUIRE(train::host_memory(root).limit_bytes == kGiB);
  REQUIRE(train::host_memory(root).available_bytes == 3 * kGiB / 4);
}

TEST_CASE("HostMemory: a disk is asked where a folder would lie") {
  const test::TemporaryFolder folder;
  const auto space = train::disk_space(folder.file("not/yet/there"));
  REQUIRE(space);
  REQUIRE(space->folder == folder.path());
  REQUIRE(space->total_bytes > 0);
  REQUIRE(space->free_bytes <= space->total_bytes);
}
