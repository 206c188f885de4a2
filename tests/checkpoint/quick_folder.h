// A folder for one test, in memory where the machine has such a file system: a sync on a disk takes
// milliseconds, and the tests of this floor do thousands. What the files do is the same.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"

namespace checkpoint_test {

class QuickFolder {
 public:
  QuickFolder() {
    path_ = "/dev/shm/atoll-test-XXXXXX";
    if (mkdtemp(path_.data()) != nullptr) return;
    path_ = (std::filesystem::temp_directory_path() / "atoll-test-XXXXXX").string();
    if (mkdtemp(path_.data()) == nullptr) {
      throw base::resource_lost("cannot make a folder like " + path_);
    }
  }
  ~QuickFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  QuickFolder(const QuickFolder&) = delete;
  QuickFolder& operator=(const QuickFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace checkpoint_test
