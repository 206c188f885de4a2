// A folder that is being written: it has another name until it is whole.
#pragma once

#include <string>
#include <utility>

#include "base/file.h"

namespace checkpoint {

inline constexpr const char* kPartialSuffix = ".partial";

// "runs/a" of "runs/a/", which another ending can be put behind.
inline std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

// Where the writing fails, what is there goes at once: the disk may be full because of it.
class PartialFolder {
 public:
  PartialFolder(base::Storage& storage, std::string final_path)
      : storage_(storage), final_path_(std::move(final_path)), path_(final_path_ + kPartialSuffix) {
    storage_.make_directories(path_);
  }

  ~PartialFolder() {
    if (is_published_) return;
    try {
      storage_.remove_all(path_);
    } catch (const base::Error&) {
      // The reason is on its way already, as the failure of the save; the next save tries again.
    }
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const std::string& path() const { return path_; }

  void publish() {
    storage_.rename(path_, final_path_);
    is_published_ = true;
  }

 private:
  base::Storage& storage_;
  const std::string final_path_;
  const std::string path_;
  bool is_published_ = false;
};

}  // namespace checkpoint
