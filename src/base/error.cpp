// Where bugs end: message, place and backtrace on stderr, then abort().
#include "base/error.h"

#include <array>
#include <cstdlib>
#include <execinfo.h>
#include <unistd.h>

namespace base {

void report_bug(const char* file, int line, const char* condition, const std::string& message) {
  // The log may be what is broken, so this writes to stderr itself.
  fmt::print(stderr, "Bug: {}:{}: CHECK({}) failed{}{}\n", file, line, condition,
             message.empty() ? "" : ": ", message);
  std::fflush(stderr);
  std::array<void*, 64> frames;
  const int frame_count = backtrace(frames.data(), int(frames.size()));
  backtrace_symbols_fd(frames.data(), frame_count, STDERR_FILENO);
  std::abort();
}

}  // namespace base
