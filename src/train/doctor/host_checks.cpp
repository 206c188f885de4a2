#include "train/doctor/host_checks.h"

#include <cmath>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "base/math.h"

namespace train {
namespace {

using enum CheckLevel;

// Links of 64 nodes with several each, files, and what libraries open.
constexpr int64_t kDescriptorsGood = 2048, kDescriptorsMin = 256;
// A path across an ocean.
constexpr double kLongTripSeconds = 0.1;
// What a connection over it should carry at least; there are up to 16 of them.
constexpr double kConnectionMbitMin = 50;
constexpr double kDiskSpeedGood = 50;  // MB/s.
// Before this there was no such program: 1 January 2026.
constexpr int64_t kEarliestNow = 1'767'225'600;

double gib_in(int64_t bytes) {
  return double(bytes) / double(base::kGiB);
}
double mib_in(int64_t bytes) {
  return double(bytes) / double(base::kMiB);
}

}  // namespace

Check check_processors(const HostFacts& facts, int64_t threads_wanted) {
  Check check{.name = "processors",
              .value = fmt::format("{} cores, {} memory node{}", facts.cores, facts.memory_nodes,
                                   facts.memory_nodes == 1 ? "" : "s"),
              .advice = {}};
  const bool is_bounded = facts.quota_cores > 0 && facts.quota_cores < double(facts.cores);
  if (is_bounded) check.value += fmt::format(", of which {:.1f} may be used", facts.quota_cores);
  const double usable = is_bounded ? facts.quota_cores : double(facts.cores);
  const double wanted = threads_wanted > 0 ? double(threads_wanted) : double(facts.cores);
  if (wanted > std::ceil(usable)) {
    check.level = kWarn;
    check.advice = fmt::format(
        "set node.threads={:.0f}: more threads than cores stand in each "
        "other's way",
        std::max(1.0, std::floor(usable)));
  }
  return check;
}

Check check_memory(const HostMemory& memory, int64_t needed_bytes) {
  if (memory.total_bytes == 0) return {"memory", kWarn, "the kernel does not tell", ""};
  Check check{.name = "memory",
              .value = fmt::format("{:.1f} GiB available of {:.1f}", gib_in(memory.available_bytes),
                                   gib_in(memory.usable_bytes())),
              .advice = {}};
  if (memory.limit_bytes > 0)
    check.value += fmt::format(" (limit of the container; the machine has {:.1f})",
                               gib_in(memory.total_bytes));
  if (needed_bytes > 0) check.value += fmt::format("; the run needs {:.1f}", gib_in(needed_bytes));
  if (needed_bytes > memory.usable_bytes()) {
    check.level = kFail;
    check.advice =
        "take a larger machine, or a container with a higher limit: the kernel would end "
        "the node";
  } else if (needed_bytes > memory.available_bytes) {
    check.level = kWarn;
    check.advice = "end what else runs here";
  }
  return check;
}

Check check_descriptors(const HostFacts& facts) {
  Check check{.name = "descriptors",
              .value = fmt::format("{} files and sockets may be open", facts.descriptors),
              .advice = {}};
  if (facts.descriptors >= kDescriptorsGood) return check;
  check.level = facts.descriptors < kDescriptorsMin ? kFail : kWarn;
  check.advice = fmt::format(
      "raise the hard limit to {} (ulimit -Hn, LimitNOFILE=, docker run "
      "--ulimit nofile=)",
      kDescriptorsGood);
  return check;
}

Check check_socket_buffers(const HostFacts& facts) {
  const int64_t least = std::min(facts.receive_bytes_max, facts.send_bytes_max);
  if (least == 0) return {"socket buffers", kWarn, "the kernel does not tell", ""};
  // Of a buffer half holds what is on its way.
  const double mbit = double(least) / 2 * 8 / 1e6 / kLongTripSeconds;
  Check check{
      .name = "socket buffers",
      .value = fmt::format("up to {:.1f} MiB in, {:.1f} out: a connection carries {:.0f} "
                           "Mbit/s over 100 ms, and there are up to 16 to a node",
                           mib_in(facts.receive_bytes_max), mib_in(facts.send_bytes_max), mbit),
      .advice = {}};
  if (mbit >= kConnectionMbitMin) return check;
  check.level = kWarn;
  check.advice =
      "on the host: sysctl -w net.ipv4.tcp_rmem='4096 131072 16777216' "
      "net.ipv4.tcp_wmem='4096 131072 16777216'";
  return check;
}

Check check_congestion_control(const HostFacts& facts) {
  if (facts.congestion_controls.empty())
    return {"congestion control", kWarn, "the kernel does not tell", ""};
  Check check{.name = "congestion control", .value = facts.congestion_controls, .advice = {}};
  if ((" " + facts.congestion_controls + " ").find(" bbr ") == std::string::npos) {
    check.level = kWarn;
    check.advice =
        "on the host: modprobe tcp_bbr; without it lost packets cost long paths most of "
        "their rate";
  }
  return check;
}

Check check_shared_memory(const HostFacts& facts, int64_t gpus) {
  Check check{.name = "/dev/shm",
              .value = facts.shared_memory_bytes < 0
                           ? "not there"
                           : fmt::format("{:.2f} GiB", gib_in(facts.shared_memory_bytes)),
              .advice = {}};
  if (gpus > 1 && facts.shared_memory_bytes < base::kGiB) {
    check.level = kWarn;
    check.advice = "NCCL uses it between GPUs: docker run --shm-size=8g, or --ipc=host";
  }
  return check;
}

Check check_clock(const HostFacts& facts) {
  Check check{.name = "clock",
              .value = fmt::format("{:%F %T} UTC{}", fmt::gmtime(facts.unix_seconds),
                                   facts.is_clock_synchronised ? "" : ", not synchronised"),
              .advice = {}};
  if (facts.unix_seconds < kEarliestNow) {
    check.level = kFail;
    check.advice = "set it: a coordinator that is started again must have a later time than before";
  } else if (!facts.is_clock_synchronised) {
    check.level = kWarn;
    check.advice =
        "switch NTP on at the host; only logs, and the last days on a list of keys, go by "
        "the clock";
  }
  return check;
}

Check check_disk_space(const std::string& folder, int64_t free_bytes, int64_t needed_bytes) {
  Check check{.name = "disk space",
              .value = fmt::format("{:.1f} GB free in {}", double(free_bytes) / 1e9, folder),
              .advice = {}};
  if (needed_bytes > 0)
    check.value += fmt::format("; checkpoints need {:.1f}", double(needed_bytes) / 1e9);
  if (free_bytes < std::max<int64_t>(needed_bytes, base::kGiB)) {
    check.level = kFail;
    check.advice =
        "rent a larger disk, lower checkpoint.keep, or choose another node.run_directory";
  }
  return check;
}

Check check_disk_speed(const std::string& folder, double megabytes_per_second,
                       int64_t checkpoint_bytes) {
  if (megabytes_per_second <= 0) {
    return {"disk speed", kFail, fmt::format("{} cannot be written", folder),
            "choose another node.run_directory, or change its owner"};
  }
  Check check{.name = "disk speed",
              .value = fmt::format("{:.0f} MB/s", megabytes_per_second),
              .advice = {}};
  if (checkpoint_bytes > 0) {
    check.value += fmt::format(": {:.1f} s a checkpoint",
                               double(checkpoint_bytes) / 1e6 / megabytes_per_second);
  }
  if (megabytes_per_second < kDiskSpeedGood) {
    check.level = kWarn;
    check.advice = "put node.run_directory on a local disk";
  }
  return check;
}

namespace {

Check check_library(const backend::CudaLibraryFacts& library) {
  Check check{.name = library.name,
              .value = library.path.empty() ? "not found"
                                            : fmt::format("{} {}", library.version, library.path),
              .advice = {}};
  if (library.problem.empty()) return check;
  check.level = kWarn;
  check.advice = fmt::format("for {}: {}", library.purpose, library.problem);
  return check;
}

}  // namespace

Checks check_gpus(const backend::CudaFacts& cuda, bool has_nvidia_driver,
                  const std::string& device) {
  const bool is_wanted = device == "cuda";
  if (device == "cpu") return {{"GPU", kOk, "not asked for: node.device is cpu", ""}};
  if (!cuda.is_built) {
    Check check{.name = "GPU", .value = "this program was built without CUDA", .advice = {}};
    if (is_wanted || has_nvidia_driver) {
      check.level = is_wanted ? kFail : kWarn;
      check.value += has_nvidia_driver ? ", and there is an NVIDIA driver" : "";
      check.advice = "use a build with -Dcuda=enabled";
    }
    return {check};
  }
  if (cuda.devices.empty()) {
    const bool is_bad = is_wanted || has_nvidia_driver;
    return {{"GPU", is_bad ? kFail : kOk, cuda.problem,
             is_bad ? "see `atoll inspect device`; a container needs --gpus all" : ""}};
  }
  Checks checks;
  for (const backend::CudaDeviceFacts& one : cuda.devices) {
    checks.push_back({"GPU", kOk,
                      fmt::format("{}, {:.1f} of {:.1f} GiB free", one.name, gib_in(one.free_bytes),
                                  gib_in(one.total_bytes)),
                      ""});
    if (one.free_bytes < one.total_bytes * 9 / 10) {
      checks.back().level = kWarn;
      checks.back().advice = "another process has memory of this GPU (nvidia-smi)";
    }
  }
  for (const auto& library : cuda.libraries) checks.push_back(check_library(library));
  return checks;
}

}  // namespace train
