#include "observe/metrics_tail.h"

#include <algorithm>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace observe {
namespace {

struct Descriptor {
  int number = -1;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
};

}  // namespace

bool MetricsTail::read(const std::function<void(std::string_view)>& on_line,
                       const std::function<void()>& on_restart, int64_t until) {
  const Descriptor file{open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat facts {};
  if (file.number < 0 || fstat(file.number, &facts) != 0 || !S_ISREG(facts.st_mode)) return false;
  if (facts.st_size < offset_) {
    offset_ = 0;
    begun_.clear();
    is_too_long_ = false;
    if (on_restart) on_restart();
  }
  std::vector<char> buffer(size_t{256} << 10);
  while (offset_ < until) {
    const size_t size = size_t(std::min(int64_t(buffer.size()), until - offset_));
    const ssize_t count = pread(file.number, buffer.data(), size, offset_);
    if (count <= 0) return count == 0;
    offset_ += count;
    take({buffer.data(), size_t(count)}, on_line);
  }
  return true;
}

void MetricsTail::take(std::string_view bytes,
                       const std::function<void(std::string_view)>& on_line) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    is_too_long_ = is_too_long_ || begun_.size() + part.size() > kLineBytesMax;
    if (is_too_long_) {
      begun_.clear();
    } else {
      begun_ += part;
    }
    if (end == std::string_view::npos) return;
    if (!is_too_long_) on_line(begun_);
    begun_.clear();
    is_too_long_ = false;
    bytes.remove_prefix(end + 1);
  }
}

}  // namespace observe
