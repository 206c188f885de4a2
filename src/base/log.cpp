// The log, on spdlog. The only file that knows spdlog; nothing here formats values, callers did
// that already.
#include "base/log.h"

#include <memory>
#include <mutex>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <vector>

#include "base/error.h"

namespace base {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  CHECK(false, "log level {}", int(level));
}

// "2026-01-31 12:00:00.123 I [node-a] text", coloured by level where stderr is a terminal.
std::string line_pattern(const std::string& prefix) {
  std::string pattern = "%Y-%m-%d %H:%M:%S.%e %^%L%$ ";
  if (!prefix.empty()) {
    pattern += '[';
    for (const char c : prefix) pattern += c == '%' ? std::string("%%") : std::string(1, c);
    pattern += "] ";
  }
  return pattern + "%v";
}

std::shared_ptr<spdlog::logger> make_logger(const LogOptions& options) {
  std::vector<spdlog::sink_ptr> sinks;
  sinks.push_back(std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  sinks.back()->set_level(spdlog_level(options.stderr_level));
  if (!options.file.empty()) {
    try {
      sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file));
    } catch (const spdlog::spdlog_ex& error) {
      throw resource_lost(fmt::format("cannot write the log: {}", error.what()),
                          "check the folder's permissions and the free space on the disk");
    }
  }
  auto logger = std::make_shared<spdlog::logger>("atoll", sinks.begin(), sinks.end());
  logger->set_pattern(line_pattern(options.prefix));
  logger->set_level(spdlog::level::debug);
  // The last lines before a crash are the ones that matter, and the log is for people: few lines.
  logger->flush_on(spdlog::level::debug);
  return logger;
}

// A line that waits for a file.
struct KeptLine {
  spdlog::log_clock::time_point time;
  LogLevel level;
  std::string text;
};
constexpr size_t kKeptLinesMax = 1000;

// The one logger of the process, exchanged by configure_log() while other threads write.
struct CurrentLogger {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger = make_logger({});
  std::function<void(LogLevel level, std::string_view text)> on_line;
  bool keeps_lines = false;
  std::vector<KeptLine> kept;
};

CurrentLogger& current_logger() {
  // Never destroyed: threads may write until the very end of the process.
  static CurrentLogger* const current = new CurrentLogger;
  return *current;
}

}  // namespace

void configure_log(const LogOptions& options) {
  auto logger = make_logger(options);
  CurrentLogger& current = current_logger();
  std::lock_guard lock(current.mutex);
  if (!options.file.empty()) {
    spdlog::sinks::sink& file = *logger->sinks().back();
    for (const KeptLine& line : current.kept)
      file.log({line.time, spdlog::source_loc{}, "", spdlog_level(line.level), line.text});
    file.flush();
  }
  if (!options.keep_lines) current.kept.clear();
  current.keeps_lines = options.keep_lines;
  current.on_line = options.on_line;
  current.logger = std::move(logger);
}

void write_log(LogLevel level, std::string_view text) {
  CurrentLogger& current = current_logger();
  std::shared_ptr<spdlog::logger> logger;
  std::function<void(LogLevel level, std::string_view text)> on_line;
  {
    std::lock_guard lock(current.mutex);
    logger = current.logger;
    on_line = current.on_line;
    if (current.keeps_lines && current.kept.size() < kKeptLinesMax)
      current.kept.push_back({spdlog::log_clock::now(), level, std::string(text)});
  }
  logger->log(spdlog_level(level), spdlog::string_view_t(text.data(), text.size()));
  if (on_line) on_line(level, text);
}

}  // namespace base
