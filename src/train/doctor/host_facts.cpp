#include "train/doctor/host_facts.h"

#include <chrono>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <sched.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>
#include <vector>

#include "base/hash.h"
#include "base/math.h"
#include "base/numa.h"

namespace train {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The last of "4096 131072 6291456": what the kernel lets a buffer grow to by itself.
int64_t last_of_three(const std::string& path) {
  std::ifstream file(path);
  int64_t minimum = 0, usual = 0, maximum = 0;
  return file >> minimum >> usual >> maximum ? maximum : 0;
}

// "150000 100000" is a core and a half, "max 100000" no bound. Containers see theirs at the top.
double quota(const std::string& root) {
  std::ifstream file(root + "/sys/fs/cgroup/cpu.max");
  double allowed = 0, period = 0;
  return file >> allowed >> period && period > 0 ? allowed / period : 0;
}

int64_t cores_allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                      : int64_t{sysconf(_SC_NPROCESSORS_ONLN)};
}

bool is_synchronised() {
  timex state{};
  return adjtimex(&state) != TIME_ERROR;
}

class ScratchFile {
 public:
  explicit ScratchFile(const std::string& folder)
      : path_(fmt::format("{}/.atoll-doctor-{}", folder, getpid())),
        descriptor_(open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600)) {}
  ~ScratchFile() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    unlink(path_.c_str());
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  bool write_all(const std::vector<uint64_t>& words) const {
    const auto* at = reinterpret_cast<const char*>(words.data());
    for (size_t left = words.size() * sizeof(uint64_t); left > 0;) {
      const ssize_t written = write(descriptor_, at, left);
      if (written <= 0) return false;
      at += written;
      left -= size_t(written);
    }
    return true;
  }
  bool sync() const { return fdatasync(descriptor_) == 0; }

 private:
  const std::string path_;
  const int descriptor_;
};

}  // namespace

HostFacts gather_host_facts(const std::string& root) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string ipv4 = root + "/proc/sys/net/ipv4/";
  HostFacts facts{
      .cores = cores_allowed(),
      .quota_cores = quota(root),
      .memory_nodes = base::numa_node_count(),
      .memory = host_memory(root),
      .descriptors = int64_t(std::min<rlim_t>(limit.rlim_max, 1 << 30)),
      .receive_bytes_max = last_of_three(ipv4 + "tcp_rmem"),
      .send_bytes_max = last_of_three(ipv4 + "tcp_wmem"),
      .congestion_controls = first_line(ipv4 + "tcp_available_congestion_control"),
      .unix_seconds = int64_t(std::time(nullptr)),
      .is_clock_synchronised = is_synchronised(),
      .has_nvidia_driver = std::filesystem::exists(root + "/proc/driver/nvidia/version")};
  const std::string shared_memory = root + "/dev/shm";
  std::error_code error;
  if (std::filesystem::is_directory(shared_memory, error)) {
    if (const auto space = disk_space(shared_memory))
      facts.shared_memory_bytes = space->total_bytes;
  }
  return facts;
}

// Numbers that no file system makes smaller.
double measure_disk_speed(const std::string& folder) {
  constexpr int64_t kPieces = 16, kPieceBytes = 4 * base::kMiB;
  std::vector<uint64_t> words(kPieceBytes / sizeof(uint64_t));
  base::Random random(1);
  for (uint64_t& word : words) word = random.next_u64();
  const ScratchFile file(folder);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t piece = 0; piece < kPieces; ++piece) {
    words.front() = uint64_t(piece);
    if (!file.write_all(words)) return 0;
  }
  if (!file.sync()) return 0;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return double(kPieces * kPieceBytes) / 1e6 / seconds.count();
}

}  // namespace train
