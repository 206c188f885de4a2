// A folder that one process at a time may change.
#pragma once

#include <memory>
#include <string>

namespace base {

// The lock of a folder: the kernel's, on the empty file `lock` in it. It is gone when the process
// ends, however it ends; the file stays. At most one object per folder and process.
class DirectoryLock {
 public:
  // Makes the file where there is none. REQUIRES: the folder is there. Throws bad_input that names
  // the process that holds it, resource_lost if the file cannot be made. On a file system without
  // locks it warns and holds nothing.
  static std::unique_ptr<DirectoryLock> take(const std::string& directory);
  // The same, but makes nothing: null where nobody has ever locked the folder.
  static std::unique_ptr<DirectoryLock> take_existing(const std::string& directory);

  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  static std::unique_ptr<DirectoryLock> take(const std::string& directory, int flags);
  void lock(const std::string& directory);
  std::string holder() const;

  const int descriptor_;
};

}  // namespace base
