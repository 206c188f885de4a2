// Reading a file that somebody else is writing.
#include "observe/metrics_tail.h"

#include <fstream>
#include <vector>

#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

struct TailRig {
  test::TemporaryFolder folder;
  std::string path = folder.file("metrics.jsonl");
  observe::MetricsTail tail{path};
  std::vector<std::string> lines;
  int restarts = 0;

  void append(const std::string& text) { std::ofstream(path, std::ios::app) << text; }
  bool read() {
    lines.clear();
    return tail.read([this](std::string_view line) { lines.emplace_back(line); },
                     [this] { ++restarts; });
  }
};

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("tail: whole lines, as they come") {
  TailRig rig;
  REQUIRE_FALSE(rig.read());
  rig.append("one\ntw");
  REQUIRE(rig.read());
  REQUIRE(rig.lines == Lines{"one"});
  REQUIRE(rig.read());
  REQUIRE(rig.lines.empty());
  rig.append("o\n\nthree\n");
  REQUIRE(rig.read());
  REQUIRE(rig.lines == Lines{"two", "", "three"});
  REQUIRE(rig.restarts == 0);
}

TEST_CASE("tail: another file under the same name, and one that is gone") {
  TailRig rig;
  rig.append("a longer line\n");
  rig.read();
  std::ofstream(rig.path) << "new\n";
  REQUIRE(rig.read());
  REQUIRE(rig.restarts == 1);
  REQUIRE(rig.lines == Lines{"new"});
  std::filesystem::remove(rig.path);
  REQUIRE_FALSE(rig.read());
  std::filesystem::create_directory(rig.path);
  REQUIRE_FALSE(rig.read());
}

TEST_CASE("tail: lines without end fill no memory, and the next one is whole") {
  TailRig rig;
  rig.append(std::string(3 * observe::MetricsTail::kLineBytesMax, 'x'));
  REQUIRE(rig.read());
  rig.append("x\nnext\n" + std::string(observe::MetricsTail::kLineBytesMax, 'y') + "\n");
  REQUIRE(rig.read());
  REQUIRE(rig.lines.size() == 2);
  REQUIRE(rig.lines[0] == "next");
  REQUIRE(rig.lines[1].size() == observe::MetricsTail::kLineBytesMax);
}

TEST_CASE("tail: up to a place") {
  TailRig rig;
  rig.append("one\ntwo\nthree\n");
  Lines found;
  REQUIRE(rig.tail.read([&](std::string_view line) { found.emplace_back(line); }, {}, 6));
  REQUIRE(found == Lines{"one"});
  REQUIRE(rig.read());
  REQUIRE(rig.lines == Lines{"two", "three"});
}
