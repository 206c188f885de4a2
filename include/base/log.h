// The log of the process: lines for people, on stderr and in the run's log.txt. Numbers for
// machines go to metrics.jsonl.
#pragma once

#include <fmt/format.h>
#include <functional>
#include <string>
#include <string_view>

namespace base {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Where lines go from now on. Called once near the start of main() and once more when the run
// directory is known; before that, lines of kInfo and above go to stderr. Thread safe, as all of
// this header is.
struct LogOptions {
  std::string prefix;                       // Stands in every line, e.g. "node-a". May be empty.
  std::string file;                         // Appended to; empty: no file.
  LogLevel stderr_level = LogLevel::kInfo;  // Lines below it go to the file only.
  // Without a file: keep lines (the first thousand) for the file of a later call, for a process
  // that does not know yet whether it may write one.
  bool keep_lines = false;
  // Hears every line as well, on the thread that writes it. It must not write lines itself.
  std::function<void(LogLevel level, std::string_view text)> on_line;
};
void configure_log(const LogOptions& options);

void write_log(LogLevel level, std::string_view text);

template <class... Values>
void log_debug(fmt::format_string<Values...> format, Values&&... values) {
  write_log(LogLevel::kDebug, fmt::format(format, std::forward<Values>(values)...));
}
template <class... Values>
void log_info(fmt::format_string<Values...> format, Values&&... values) {
  write_log(LogLevel::kInfo, fmt::format(format, std::forward<Values>(values)...));
}
template <class... Values>
void log_warning(fmt::format_string<Values...> format, Values&&... values) {
  write_log(LogLevel::kWarning, fmt::format(format, std::forward<Values>(values)...));
}
template <class... Values>
void log_error(fmt::format_string<Values...> format, Values&&... values) {
  write_log(LogLevel::kError, fmt::format(format, std::forward<Values>(values)...));
}

}  // namespace base
