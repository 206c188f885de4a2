// A lock of fcntl()'s: the kernel knows whose it is, so that nothing has to be written into the
// file, and network file systems have it, too.
#include "base/directory_lock.h"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <system_error>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

namespace base {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

// For writing: nobody else may have it.
struct flock whole_file() {
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  return range;
}

}  // namespace

std::unique_ptr<DirectoryLock> DirectoryLock::take(const std::string& directory) {
  return take(directory, O_CREAT);
}

std::unique_ptr<DirectoryLock> DirectoryLock::take_existing(const std::string& directory) {
  return take(directory, 0);
}

std::unique_ptr<DirectoryLock> DirectoryLock::take(const std::string& directory, int flags) {
  const std::string path = directory + "/lock";
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0644);
  if (descriptor < 0) {
    const bool is_absent = errno == ENOENT || errno == ENOTDIR;
    if (is_absent && (flags & O_CREAT) == 0) return nullptr;
    throw resource_lost(fmt::format("cannot open {}: {}", path, reason(errno)),
                        "check the owner and the permissions of the folder");
  }
  std::unique_ptr<DirectoryLock> lock(new DirectoryLock(descriptor));
  lock->lock(directory);
  return lock;
}

DirectoryLock::~DirectoryLock() {
  ::close(descriptor_);
}

void DirectoryLock::lock(const std::string& directory) {
  const auto range = whole_file();
  if (::fcntl(descriptor_, F_SETLK, &range) == 0) return;
  if (errno == EAGAIN || errno == EACCES) {
    throw bad_input(fmt::format("{} is in use by {}", directory, holder()),
                    "one process at a time may use a run directory: choose another one, or end "
                    "that process");
  }
  log_warning("{} cannot be locked ({}): see to it that no second process uses it", directory,
              reason(errno));
}

// One in another container or on another machine has no number here.
std::string DirectoryLock::holder() const {
  auto range = whole_file();
  const bool is_known = ::fcntl(descriptor_, F_GETLK, &range) == 0 && range.l_type != F_UNLCK;
  return is_known && range.l_pid > 0 ? fmt::format("process {}", range.l_pid) : "another process";
}

}  // namespace base
