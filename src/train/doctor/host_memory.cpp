#include "train/doctor/host_memory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/statvfs.h>

#include "base/math.h"

namespace train {
namespace {

namespace fs = std::filesystem;

// The first number of a file; nothing where there is none, as in "max".
std::optional<int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// "MemTotal:  16384 kB" in bytes.
int64_t field_of_meminfo(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  int64_t kib = 0;
  while (file >> word)
    if (word == name && file >> kib) return kib * base::kKiB;
  return 0;
}

// Of the second version ("0::/path") and of the first one ("5:memory:/path"), where the process is.
std::string group_path(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    if (line.substr(first + 1, second - first - 1) == controller) return line.substr(second + 1);
  }
  return "/";
}

struct GroupMemory {
  int64_t limit = 0, used = 0;  // 0: no limit.
};

// A limit of one group holds for all below it, so the tightest one on the way up counts. In a
// container the way may begin at a path that is not there, and only the top is.
GroupMemory tightest(const std::string& top, const std::string& path, const char* limit_file,
                     const char* used_file) {
  GroupMemory least;
  for (fs::path at = path; !at.empty(); at = at.parent_path()) {
    const std::string folder = top + (at == "/" ? "" : at.string());
    const auto limit = number_in(folder + "/" + limit_file);
    // The first version says "no limit" with a number of this size.
    const bool is_limit = limit && *limit > 0 && *limit < int64_t{1} << 60;
    if (is_limit && (least.limit == 0 || *limit < least.limit))
      least = {*limit, number_in(folder + "/" + used_file).value_or(0)};
    if (at == at.root_path()) break;
  }
  return least;
}

}  // namespace

HostMemory host_memory(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  HostMemory memory{.total_bytes = field_of_meminfo(meminfo, "MemTotal:"),
                    .available_bytes = field_of_meminfo(meminfo, "MemAvailable:")};
  const std::string top = root + "/sys/fs/cgroup";
  GroupMemory group = tightest(top, group_path(root, ""), "memory.max", "memory.current");
  if (group.limit == 0) {
    group = tightest(top + "/memory", group_path(root, "memory"), "memory.limit_in_bytes",
                     "memory.usage_in_bytes");
  }
  memory.limit_bytes = group.limit;
  if (group.limit > 0)
    memory.available_bytes = std::min(memory.available_bytes, group.limit - group.used);
  return memory;
}

std::optional<DiskSpace> disk_space(const std::string& path) {
  std::error_code error;
  fs::path folder = fs::absolute(path, error).lexically_normal();
  if (error) return std::nullopt;
  if (folder.filename().empty() && folder.has_relative_path()) folder = folder.parent_path();
  while (!fs::exists(folder, error) && folder != folder.root_path()) folder = folder.parent_path();
  struct statvfs status {};
  if (statvfs(folder.c_str(), &status) != 0) return std::nullopt;
  return DiskSpace{.folder = folder.string(),
                   .free_bytes = int64_t(status.f_bavail) * int64_t(status.f_frsize),
                   .total_bytes = int64_t(status.f_blocks) * int64_t(status.f_frsize)};
}

}  // namespace train
