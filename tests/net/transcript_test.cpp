// Every transcript is replayed, and every row of docs/rounds.md, "When something dies" and "When
// the coordinator dies", has one. ATOLL_REWRITE=1 writes down what comes out instead, for a change
// that is meant: then look at the difference.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "net/transcript/replay.h"
#include "support/catch.h"

namespace net {
namespace {

namespace fs = std::filesystem;
const fs::path kFolder = fs::path(ATOLL_SOURCE_ROOT) / "tests/net/transcripts";

std::string read(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  REQUIRE(file.good());
  return text.str();
}

std::set<std::string> transcript_names() {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFolder)) names.insert(entry.path().filename());
  return names;
}

// The number of the first line that differs, and both.
std::string difference(const std::string& expected, const std::string& found) {
  std::istringstream a(expected), b(found);
  for (int64_t number = 1;; ++number) {
    std::string left, right;
    const bool has_left = bool(std::getline(a, left)), has_right = bool(std::getline(b, right));
    if (!has_left && !has_right) return {};
    if (has_left == has_right && left == right) continue;
    return fmt::format("line {}: expected\n{}\nand found\n{}", number, left, right);
  }
}

TEST_CASE("transcripts: what is written down is what happens", "[transcripts]") {
  const bool rewrites = std::getenv("ATOLL_REWRITE") != nullptr;
  REQUIRE(!transcript_names().empty());
  for (const std::string& name : transcript_names()) {
    INFO(name);
    const std::string expected = read(kFolder / name);
    const auto found = replay(expected);
    INFO((found.ok() ? difference(expected, *found) : found.reason()));
    REQUIRE(found.ok());
    REQUIRE(expected.starts_with("# "));
    if (rewrites) {
      std::ofstream(kFolder / name) << *found;
    } else {
      REQUIRE(*found == expected);
    }
  }
}

TEST_CASE("transcripts: each way to die that is documented has one", "[transcripts]") {
  const std::string rounds = read(fs::path(ATOLL_SOURCE_ROOT) / "docs/rounds.md");
  std::string sections;
  for (const char* title : {"## When something dies", "## When the coordinator dies"}) {
    const size_t begin = rounds.find(title);
    REQUIRE(begin != std::string::npos);
    sections += rounds.substr(begin, rounds.find("\n## ", begin) - begin) + "\n";
  }
  std::istringstream lines(sections);
  const std::regex link(R"(^\| \[[^\]]+\]\(\.\./tests/net/transcripts/([a-z-]+\.txt)\) \|.*)");
  std::set<std::string> linked;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("|") || line.starts_with("| what |") || line.starts_with("|-")) continue;
    INFO(line);
    std::smatch row;
    REQUIRE(std::regex_match(line, row, link));
    REQUIRE(linked.insert(row[1]).second);
  }
  REQUIRE(linked == transcript_names());
}

TEST_CASE("transcripts: what cannot be done is said", "[transcripts]") {
  const auto why = [](const std::string& transcript) {
    const auto found = replay(transcript);
    REQUIRE(!found.ok());
    return found.reason();
  };
  REQUIRE(why("> fly b\n") == "line 1: there is no such command: fly b");
  REQUIRE(why("# Nothing.\n> nodes 2\n") == "it has no command that does anything");
  REQUIRE(why("> start\n> nodes 2\n") == "line 2: too late for: nodes 2");
  REQUIRE(why("> nodes two\n") == "line 1: no number: two");
  REQUIRE(why("> start\n> kill z\n") == "line 2: nobody is called z");
  REQUIRE(why("> start\n> kill\n") == "line 2: words are missing");
  REQUIRE(why("> start a\n> thaw\n") == "line 2: words are missing");
  REQUIRE(why("> start a\n> kill b\n") == "line 2: b does not run");
  REQUIRE(why("> start a\n> until a active\n") == "line 2: that never happens");
  REQUIRE(why("> start\n> when 1 rumour to b, kill b\n") == "line 2: no message is called rumour");
  REQUIRE(why("> start\n> when 1 open to b, fly b\n> run 9\n") ==
          "line 3: there is no such command: fly b");
}

}  // namespace
}  // namespace net
