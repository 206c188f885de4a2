// Each judgement of a machine, on values that no test machine has.
#include "train/doctor/host_checks.h"

#include <filesystem>
#include <fstream>

#include "base/math.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

using train::Check;
using train::CheckLevel;
using enum train::CheckLevel;
using base::kGiB;

// Nothing to complain of.
train::HostFacts good_host() {
  return {.cores = 8,
          .memory = {.total_bytes = 32 * kGiB, .available_bytes = 30 * kGiB},
          .descriptors = 65536,
          .receive_bytes_max = 16 << 20,
          .send_bytes_max = 16 << 20,
          .congestion_controls = "reno cubic bbr",
          .shared_memory_bytes = 16 * kGiB,
          .unix_seconds = 1'800'000'000};
}

// A level below OK always says what to do.
void require_level(const Check& check, CheckLevel level, const std::string& part = "") {
  INFO(check.name << ": " << check.value << " -> " << check.advice);
  REQUIRE(check.level == level);
  REQUIRE_FALSE(check.value.empty());
  REQUIRE((level == kOk) == check.advice.empty());
  REQUIRE((check.value + check.advice).find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("HostChecks: a good machine") {
  const train::HostFacts host = good_host();
  require_level(check_processors(host, 0), kOk, "8 cores, 1 memory node");
  require_level(check_memory(host.memory, 20 * kGiB), kOk, "30.0 GiB available of 32.0");
  require_level(check_descriptors(host), kOk);
  require_level(check_socket_buffers(host), kOk, "671 Mbit/s over 100 ms");
  require_level(check_congestion_control(host), kOk);
  require_level(check_shared_memory(host, 8), kOk, "16.00 GiB");
  require_level(check_clock(host), kOk, "2027-01-15");
  require_level(train::check_disk_space("/run", 10 * kGiB, 9 * kGiB), kOk);
  require_level(train::check_disk_speed("/run", 1000, 2'000'000'000), kOk, "2.0 s a checkpoint");
}

TEST_CASE("HostChecks: a container with a part of a processor") {
  train::HostFacts host = good_host();
  host.quota_cores = 2.5;
  require_level(check_processors(host, 0), kWarn, "node.threads=2");
  require_level(check_processors(host, 3), kOk, "of which 2.5 may be used");
  require_level(check_processors(host, 4), kWarn);
}

TEST_CASE("HostChecks: too little memory, or too little left of it") {
  train::HostMemory memory = good_host().memory;
  require_level(train::check_memory(memory, 31 * kGiB), kWarn, "end what else runs");
  require_level(train::check_memory(memory, 33 * kGiB), kFail, "larger machine");
  memory.limit_bytes = 4 * kGiB;
  memory.available_bytes = 3 * kGiB;
  require_level(train::check_memory(memory, 5 * kGiB), kFail, "limit of the container");
}

TEST_CASE("HostChecks: descriptors, buffers and what the kernel speaks") {
  train::HostFacts host = good_host();
  host.descriptors = 1024;
  require_level(check_descriptors(host), kWarn, "2048");
  host.descriptors = 100;
  require_level(check_descriptors(host), kFail, "ulimit -Hn");
  host.send_bytes_max = 212992;
  require_level(check_socket_buffers(host), kWarn, "tcp_wmem");
  for (const char* without : {"reno cubic", "bbr2 cubic", "notbbr"}) {
    host.congestion_controls = without;
    require_level(check_congestion_control(host), kWarn, "modprobe tcp_bbr");
  }
  host.congestion_controls = "bbr";
  require_level(check_congestion_control(host), kOk);
  host.shared_memory_bytes = 64 << 20;  // As Docker has it.
  require_level(check_shared_memory(host, 1), kOk);
  require_level(check_shared_memory(host, 2), kWarn, "--shm-size");
  host.shared_memory_bytes = -1;
  require_level(check_shared_memory(host, 2), kWarn, "not there");
}

TEST_CASE("HostChecks: clocks") {
  train::HostFacts host = good_host();
  host.is_clock_synchronised = false;
  require_level(check_clock(host), kWarn, "NTP");
  host.unix_seconds = 1000;
  require_level(check_clock(host), kFail, "1970-01-01");
}

TEST_CASE("HostChecks: disks") {
  require_level(train::check_disk_space("/run", 8 * kGiB, 9 * kGiB), kFail, "checkpoint.keep");
  require_level(train::check_disk_space("/run", kGiB / 2, 0), kFail);
  require_level(train::check_disk_speed("/run", 20, 0), kWarn, "local disk");
  require_level(train::check_disk_speed("/run", 0, 0), kFail, "/run cannot be written");
  const test::TemporaryFolder folder;
  REQUIRE(train::measure_disk_speed(folder.path()) > 0);
  REQUIRE(std::filesystem::is_empty(folder.path()));
  REQUIRE(train::measure_disk_speed(folder.file("not there")) == 0);
}

TEST_CASE("HostChecks: GPUs, of builds with and without CUDA") {
  using train::check_gpus;
  const backend::CudaFacts none;
  require_level(check_gpus(none, false, "auto").front(), kOk, "without CUDA");
  require_level(check_gpus(none, true, "auto").front(), kWarn, "there is an NVIDIA driver");
  require_level(check_gpus(none, false, "cuda").front(), kFail, "-Dcuda=enabled");
  require_level(check_gpus(none, true, "cpu").front(), kOk);
  backend::CudaFacts cuda{.is_built = true, .problem = "no driver"};
  require_level(check_gpus(cuda, false, "auto").front(), kOk, "no driver");
  require_level(check_gpus(cuda, true, "auto").front(), kFail, "--gpus all");
  cuda.devices = {{.name = "H200", .total_bytes = 140 * kGiB, .free_bytes = 139 * kGiB},
                  {.name = "H200", .total_bytes = 140 * kGiB, .free_bytes = 10 * kGiB}};
  cuda.libraries = {{.name = "libcudnn.so.9", .purpose = "attention", .problem = "not found"}};
  const train::Checks checks = check_gpus(cuda, true, "auto");
  REQUIRE(checks.size() == 3);
  require_level(checks[0], kOk, "139.0 of 140.0 GiB free");
  require_level(checks[1], kWarn, "nvidia-smi");
  require_level(checks[2], kWarn, "for attention: not found");
}

TEST_CASE("HostFacts: from the kernel's files") {
  const test::TemporaryFolder folder;
  const auto put = [&](const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder.path() + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  };
  put("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
  put("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n");
  put("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic bbr\n");
  put("sys/fs/cgroup/cpu.max", "150000 100000\n");
  put("proc/driver/nvidia/version", "NVRM version\n");
  const train::HostFacts facts = train::gather_host_facts(folder.path());
  REQUIRE(facts.receive_bytes_max == 6291456);
  REQUIRE(facts.send_bytes_max == 4194304);
  REQUIRE(facts.congestion_controls == "reno cubic bbr");
  REQUIRE(facts.quota_cores == 1.5);
  REQUIRE(facts.has_nvidia_driver);
  REQUIRE(facts.shared_memory_bytes == -1);
  REQUIRE(facts.cores >= 1);
  put("sys/fs/cgroup/cpu.max", "max 100000\n");
  REQUIRE(train::gather_host_facts(folder.path()).quota_cores == 0);
}
