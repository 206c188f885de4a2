// The log: what a line looks like, what goes to the file, and that it may be configured again.
#include "base/log.h"

#include <regex>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

std::vector<std::string> lines_of(const std::string& path) {
  const std::string text = base::make_disk_storage()->read_text(path);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// The file's lines, without anything on the test's own stderr; the log is as at the start
// afterwards.
class LogScope {
 public:
  explicit LogScope(base::LogOptions options) {
    options.stderr_level = base::LogLevel::kError;
    base::configure_log(options);
  }
  ~LogScope() { base::configure_log({}); }
};

}  // namespace

TEST_CASE("A line has time, level, prefix and text", "[log]") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("log.txt");
  const LogScope scope({.prefix = "node-100%d", .file = path});
  base::log_debug("a {}", 1);
  base::log_info("b {{}} {}", "{} %v");
  base::log_warning("c");
  const auto lines = lines_of(path);
  REQUIRE(lines.size() == 3);
  const std::string time = R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )";
  REQUIRE(std::regex_match(lines[0], std::regex(time + R"(D \[node-100%d\] a 1)")));
  REQUIRE(std::regex_match(lines[1], std::regex(time + R"(I \[node-100%d\] b \{\} \{\} %v)")));
  REQUIRE(std::regex_match(lines[2], std::regex(time + R"(W \[node-100%d\] c)")));
}

TEST_CASE("Lines from before the file is known can be kept for it", "[log]") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("log.txt");
  {
    const LogScope scope({.prefix = "early", .file = {}, .keep_lines = true});
    base::log_warning("one");
    base::configure_log({.prefix = "late", .file = path, .stderr_level = base::LogLevel::kError});
    base::log_info("two");
  }
  const auto lines = lines_of(path);
  REQUIRE(lines.size() == 2);
  const std::string time = R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )";
  REQUIRE(std::regex_match(lines[0], std::regex(time + R"(W \[late\] one)")));
  REQUIRE(std::regex_match(lines[1], std::regex(time + R"(I \[late\] two)")));
  const LogScope without({.file = folder.file("other")});
  REQUIRE(lines_of(folder.file("other")).empty());
}

TEST_CASE("Every line is heard by whoever asks, until the log is configured again", "[log]") {
  std::vector<std::string> heard;
  {
    LogScope scope({.prefix = "node", .on_line = [&](base::LogLevel level, std::string_view text) {
                      heard.push_back(fmt::format("{} {}", int(level), text));
                    }});
    base::log_debug("one");
    base::log_warning("two {}", 2);
    base::configure_log({.stderr_level = base::LogLevel::kError});
    base::log_warning("three");
  }
  REQUIRE(heard == std::vector<std::string>{"0 one", "2 two 2"});
}

TEST_CASE("Configuring the log again moves it, and an old file is appended to", "[log]") {
  const test::TemporaryFolder folder;
  {
    const LogScope scope({.file = folder.file("first")});
    base::log_info("one");
    base::configure_log({.file = folder.file("second"), .stderr_level = base::LogLevel::kError});
    base::log_info("two");
    base::configure_log({.file = folder.file("first"), .stderr_level = base::LogLevel::kError});
    base::log_info("three");
  }
  REQUIRE(lines_of(folder.file("first")).size() == 2);
  REQUIRE(lines_of(folder.file("second")).size() == 1);
}

TEST_CASE("Lines of several threads stay whole", "[log]") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("log.txt");
  const LogScope scope({.file = path});
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 50; ++i) base::log_info("{}", std::string(100, 'x'));
    });
  }
  for (auto& thread : threads) thread.join();
  const auto lines = lines_of(path);
  REQUIRE(lines.size() == 150);
  for (const auto& line : lines) REQUIRE(line.ends_with(" " + std::string(100, 'x')));
}

TEST_CASE("A log file that cannot be written is an error with its path", "[log]") {
  const test::TemporaryFolder folder;
  base::make_disk_storage()->write_atomically(folder.file("a"), std::string("not a folder"));
  try {
    base::configure_log({.file = folder.file("a/log.txt")});
    FAIL("no exception");
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kResourceLost);
    REQUIRE(std::string(error.what()).find(folder.file("a/log.txt")) != std::string::npos);
  }
}
