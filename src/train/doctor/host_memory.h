// What this machine, or the container on it, has: memory and room on a disk. Read from the kernel's
// files; `root` stands before their paths, for tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace train {

struct HostMemory {
  int64_t total_bytes = 0;      // Of the machine.
  int64_t available_bytes = 0;  // As the kernel estimates it, within the limit.
  int64_t limit_bytes = 0;      // Of our control group and those above it; 0: none.
  int64_t usable_bytes() const {
    return limit_bytes > 0 && limit_bytes < total_bytes ? limit_bytes : total_bytes;
  }
};
// Zeros where the kernel does not tell.
HostMemory host_memory(const std::string& root = "");

struct DiskSpace {
  std::string folder;  // The nearest one to the asked path that is there.
  int64_t free_bytes = 0, total_bytes = 0;
};
// Of the file system in which `path` lies, or would lie. Nothing where it cannot be asked.
std::optional<DiskSpace> disk_space(const std::string& path);

}  // namespace train
