// The lines of a metrics.jsonl that another process may be writing.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>

namespace observe {

class MetricsTail {
 public:
  explicit MetricsTail(std::string path) : path_(std::move(path)) {}

  // Calls `on_line` for each whole line that has come since the last call, without its end. A line
  // that is not whole yet waits. A file that is shorter than before is another one: `on_restart` is
  // called, and all of it comes. False: there is no such file, or it cannot be read. Longer lines
  // than kLineBytesMax are left out. `until`: bytes of the file that are read, at most.
  bool read(const std::function<void(std::string_view)>& on_line,
            const std::function<void()>& on_restart = {},
            int64_t until = std::numeric_limits<int64_t>::max());

  static constexpr size_t kLineBytesMax = 1 << 20;
  const std::string& path() const { return path_; }

 private:
  void take(std::string_view bytes, const std::function<void(std::string_view)>& on_line);

  std::string path_;
  int64_t offset_ = 0;
  std::string begun_;         // A line without its end.
  bool is_too_long_ = false;  // That line.
};

}  // namespace observe
