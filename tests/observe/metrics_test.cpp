// metrics.jsonl as its readers find it: after restarts, crashes and full disks, and while many
// threads write.
#include "observe/metrics.h"

#include <csignal>
#include <fstream>
#include <set>
#include <sstream>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using observe::MetricsFile;
using test::TemporaryFolder;

namespace {

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::string> read_lines(const std::string& path) {
  const std::string text = read_file(path);
  REQUIRE((text.empty() || text.back() == '\n'));
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void write_step(MetricsFile& file, int64_t step) {
  auto line = file.begin_line("inner_step");
  line.field("step", step);
  file.write(line);
}

// -1: the line is not a whole one of write_step().
int64_t step_of(const std::string& line) {
  const auto value = base::JsonValue::parse(line);
  if (!value) return -1;
  const auto step = value->get("step");
  return step ? *step->as_integer() : -1;
}

// Sends the log into a file for as long as it lives.
class LogCapture {
 public:
  explicit LogCapture(const std::string& path) : path_(path) {
    base::configure_log({.prefix = "", .file = path, .stderr_level = base::LogLevel::kError});
  }
  ~LogCapture() { base::configure_log({}); }
  size_t line_count() const { return read_lines(path_).size(); }

 private:
  const std::string path_;
};

// As a full disk: for as long as it lives, the process cannot make a file longer than this.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(size_t byte_count) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = byte_count;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_ = {};
};

}  // namespace

TEST_CASE("A line has event, time and node first", "[metrics]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  const auto before = std::chrono::system_clock::now();
  {
    MetricsFile file(path, "node \"a\"\n");
    auto line = file.begin_line("round");
    line.field("seconds", 0.5).key("members").begin_array().value(1).value(2).end_array();
    file.write(line);
  }
  const auto after = std::chrono::system_clock::now();
  const auto lines = read_lines(path);
  REQUIRE(lines.size() == 1);
  const std::string start = R"({"event":"round","time":")";
  const std::string end = R"(","node":"node \"a\"\n","seconds":0.5,"members":[1,2]})";
  REQUIRE(lines[0].starts_with(start));
  REQUIRE(lines[0].ends_with(end));

  // The time is in the form 2026-01-31T12:00:00.123Z, and it is now.
  const std::string time =
      lines[0].substr(start.size(), lines[0].size() - start.size() - end.size());
  std::tm utc = {};
  int milliseconds = -1;
  int characters = -1;
  REQUIRE(std::sscanf(time.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &utc.tm_year, &utc.tm_mon,
                      &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &milliseconds,
                      &characters) == 7);
  REQUIRE(characters == int(time.size()));
  REQUIRE(time.size() == 24);
  utc.tm_year -= 1900;
  utc.tm_mon -= 1;
  const auto written = std::chrono::system_clock::from_time_t(timegm(&utc)) +
                       std::chrono::milliseconds(milliseconds);
  REQUIRE(written >= before - std::chrono::milliseconds(1));
  REQUIRE(written <= after);
}

TEST_CASE("A restart goes on behind the lines of before", "[metrics]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  for (int64_t step = 0; step < 3; ++step) {
    MetricsFile file(path, "a");
    write_step(file, step);
  }
  const auto lines = read_lines(path);
  REQUIRE(lines.size() == 3);
  for (size_t i = 0; i < 3; ++i) REQUIRE(step_of(lines[i]) == int64_t(i));
}

TEST_CASE("A line that a crash tore is closed", "[metrics]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  std::ofstream(path) << "{\"step\":1}\n{\"st";
  {
    MetricsFile file(path, "a");
    write_step(file, 7);
    write_step(file, 8);
  }
  const auto lines = read_lines(path);
  REQUIRE(lines.size() == 4);
  REQUIRE(lines[1] == "{\"st");
  REQUIRE(step_of(lines[2]) == 7);
  REQUIRE(step_of(lines[3]) == 8);
}

TEST_CASE("A line that a full disk tore costs no other line", "[metrics]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  const LogCapture log(folder.file("log.txt"));
  // The file is larger than the log will be, so that the limit hits it alone.
  std::ofstream(path) << "{\"text\":\"" << std::string(10'000, 'x') << "\"}\n";
  MetricsFile file(path, "a");
  write_step(file, 1);
  {
    const FileSizeLimit limit(read_file(path).size() + 20);
    for (int64_t step = 2; step < 6; ++step) write_step(file, step);
  }
  REQUIRE(!read_file(path).ends_with("\n"));
  write_step(file, 6);
  write_step(file, 7);

  const auto lines = read_lines(path);
  REQUIRE(lines.size() == 5);
  REQUIRE(step_of(lines[1]) == 1);
  REQUIRE(lines[2].size() == 20);
  REQUIRE(step_of(lines[3]) == 6);
  REQUIRE(step_of(lines[4]) == 7);
  REQUIRE(log.line_count() == 1);
}

TEST_CASE("A disk that takes nothing is reported once", "[metrics]") {
  const TemporaryFolder folder;
  const LogCapture log(folder.file("log.txt"));
  MetricsFile file("/dev/full", "a");
  for (int64_t step = 0; step < 5; ++step) write_step(file, step);
  REQUIRE(log.line_count() == 1);
  REQUIRE(read_file(folder.file("log.txt")).find("No space left") != std::string::npos);
}

TEST_CASE("A folder that is not there is a lost resource", "[metrics]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("absent/metrics.jsonl");
  try {
    MetricsFile file(path, "a");
    FAIL("opened " << path);
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kResourceLost);
    REQUIRE(std::string(error.what()).find(path) != std::string::npos);
  }
}

TEST_CASE("Lines of several threads and of two objects do not mix", "[metrics]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  constexpr int64_t kThreads = 4;
  constexpr int64_t kLines = 500;
  MetricsFile first(path, std::string(300, 'a'));
  MetricsFile second(path, "b");
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < kLines; ++i) write_step(t % 2 == 0 ? first : second, t * kLines + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<int64_t> steps;
  for (const std::string& line : read_lines(path)) steps.insert(step_of(line));
  REQUIRE(int64_t(steps.size()) == kThreads * kLines);
  REQUIRE(*steps.begin() == 0);
  REQUIRE(*steps.rbegin() == kThreads * kLines - 1);
}
