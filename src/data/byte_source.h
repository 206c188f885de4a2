// The bytes of a file, front to back, through a window: a file may be larger than memory, and what
// was unpacked exists nowhere as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"

namespace data {

class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // What is at hand and was not skipped. Its bytes stay valid until extend(), and skip() moves
  // nothing.
  std::string_view window() const { return window_; }
  // Nothing comes behind the window.
  bool is_whole() const { return is_whole_; }
  void skip(size_t count) { window_.remove_prefix(count); }
  // Makes the window longer, or finds that it is whole. REQUIRES: !is_whole().
  virtual void extend() = 0;
  // Until the window has `count` bytes or is whole.
  void extend_to(size_t count) {
    while (!is_whole_ && window_.size() < count) extend();
  }

  // What was read stays where it is as long as the object lives.
  virtual bool stays() const = 0;
  // Of the file, which may be packed: how much of it has been used.
  virtual int64_t position() const = 0;
  // Why the rest cannot be read; the window is whole then. Empty: nothing is wrong.
  const std::string& problem() const { return problem_; }

 protected:
  std::string_view window_;
  bool is_whole_ = false;
  std::string problem_;
};

// All of it at once.
class MemorySource : public ByteSource {
 public:
  // `content` outlives the object.
  explicit MemorySource(std::string_view content) : size_(content.size()) {
    window_ = content;
    is_whole_ = true;
  }
  explicit MemorySource(std::unique_ptr<base::MappedFile> file)
      : MemorySource({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}) {
    file_ = std::move(file);
  }
  void extend() override {}
  bool stays() const override { return true; }
  int64_t position() const override { return int64_t(size_ - window_.size()); }

 private:
  std::unique_ptr<base::MappedFile> file_;
  size_t size_;
};

// A plain file as it is, one of gzip or zstd unpacked, as its first bytes say.
std::unique_ptr<ByteSource> open_source(base::Storage& storage, const std::string& path);

}  // namespace data
