// The run's config: overrides, checks between fields, and that configs/ and configs/README.md are
// in step with the code.
#include "train/run_config.h"

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

train::RunConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  const std::string path = folder.path() + "/run.json";
  storage->write_atomically(path, text);
  return train::load_run_config(*storage, path, overrides);
}

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    load(text, overrides);
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("RunConfig: overrides come after the file, in order") {
  const auto config = load(R"({"training": {"steps": 1000}})",
                           {"training.steps=2000", "node.name=left", "training.steps=3000"});
  REQUIRE(config.training.steps == 3000);
  REQUIRE(config.node.name == "left");
  REQUIRE(config.optimizer.schedule.total_steps == 3000);
}

TEST_CASE("RunConfig: time-outs follow from swarm.dead_seconds unless they are set") {
  const auto config = load(R"({"swarm": {"stall_seconds": 50}})", {"swarm.dead_seconds=30"});
  REQUIRE(config.swarm.stall_seconds == 50);
  REQUIRE(config.swarm.round_timeout_seconds == 600);
  REQUIRE(config.derived_keys.size() == 6);
  REQUIRE(config.derived_keys.front() == "swarm.heartbeat_seconds");
  REQUIRE(says(error_of("{}", {"swarm.heartbeat_seconds=6"}),
               "swarm.dead_seconds (15) is less than 3 times swarm.heartbeat_seconds (6)"));
}

TEST_CASE("RunConfig: a key's type says how an override is read") {
  const auto config = load(R"({"data": {"sources": [{"prefix": "a"}]}})",
                           {"node.name=12345678", "name=true", "data.sources.0.prefix=007",
                            "comment=\"quoted\"", "node.device=cpu", "node.threads=3"});
  REQUIRE(config.node.name == "12345678");
  REQUIRE(config.name == "true");
  REQUIRE(config.data.sources[0].prefix == "007");
  REQUIRE(config.comment == "quoted");
  REQUIRE(config.node.device == "cpu");
  REQUIRE(config.node.threads == 3);
  REQUIRE(says(error_of("{}", {"node.threads=many"}), "expected an integer"));
  REQUIRE(says(error_of("{}", {"node.nme=1"}), "node.name"));
}

TEST_CASE("RunConfig: changes come after overrides, and only of what may change") {
  const test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  const std::string path = folder.file("run.json");
  storage->write_atomically(path, std::string("{}"));
  const auto config =
      train::load_run_config(*storage, path, {"training.steps=1000"}, {"training.steps=2000"});
  REQUIRE(config.training.steps == 2000);
  REQUIRE(config.optimizer.schedule.total_steps == 2000);
  REQUIRE(config.changed_keys == std::vector<std::string>{"training.steps"});
  REQUIRE_THROWS_WITH(train::load_run_config(*storage, path, {}, {"seed=1"}),
                      "--change seed=1: seed may not change in a run");
}

TEST_CASE("RunConfig: what it prints reads back as the same") {
  const auto config = load(
      R"({"data": {"sources": [{"prefix": "a", "weight": 0.25}, {"prefix": "b"}]}, "name": "x"})");
  const auto again = load(train::to_json(config));
  REQUIRE(train::to_json(again) == train::to_json(config));
  REQUIRE(train::shared_digest(again) == train::shared_digest(config));
  REQUIRE(again.data.sources.size() == 2);
  REQUIRE(again.data.sources[0].weight == 0.25);
}

TEST_CASE("RunConfig: the digest covers what nodes must share and nothing else") {
  const auto digest = [](const std::vector<std::string>& overrides) {
    return train::shared_digest(load("{}", overrides));
  };
  const auto reference = digest({});
  for (const char* same :
       {"node.name=other", "node.threads=3", "checkpoint.keep=9", "training.batch_rows=64",
        "swarm.coordinator=host:1", "evaluation.rows=3"})
    REQUIRE(digest({same}) == reference);
  for (const char* different :
       {"name=other", "seed=1", "model.width=128", "optimizer.learning_rate=0.1",
        "outer.codec=fp32", "outer.inner_steps=7", "training.steps=500"})
    REQUIRE(digest({different}) != reference);
}

TEST_CASE("RunConfig: errors name the key and help") {
  REQUIRE(says(error_of(R"({"outr": {}})"), "outr"));
  REQUIRE(says(error_of(R"({"outr": {}})"), "outer"));
  REQUIRE(says(error_of("{}", {"training.micro_batch_rows=3"}), "micro_batch_rows"));
  REQUIRE(says(error_of("{}", {"outer.fragments=99"}), "outer.fragments"));
  REQUIRE(says(error_of("{}", {"outer.contribution_norm_max=0.5"}), "contribution_norm_max"));
  REQUIRE(says(error_of("{}", {"node.listen=nonsense"}), "node.listen"));
  REQUIRE(says(error_of("{}", {"swarm.members_min=3"}), "members_min"));
  REQUIRE(says(error_of("{}", {"no_equals_sign"}), "key=value"));
  REQUIRE(says(error_of(R"({"model": {"kv_heads": 3}})"), "kv_heads"));
}

TEST_CASE("RunConfig: every preset loads") {
  const auto storage = base::make_disk_storage();
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ATOLL_SOURCE_ROOT "/configs")) {
    if (entry.path().extension() != ".json") continue;
    REQUIRE_NOTHROW(train::load_run_config(*storage, entry.path().string(), {}));
    ++count;
  }
  REQUIRE(count >= 2);
}

TEST_CASE("RunConfig: configs/README.md documents exactly the keys there are") {
  train::RunConfig defaults;
  std::set<std::string> keys;
  for (const auto& key :
       base::list_config_keys([&](base::ConfigVisitor& v) { train::describe(v, defaults); }))
    keys.insert(key.path);
  std::set<std::string> documented;
  const std::string readme = read_file(ATOLL_SOURCE_ROOT "/configs/README.md");
  const std::regex row(R"(\n\| `([^`]+)` \|)");
  for (auto match = std::sregex_iterator(readme.begin(), readme.end(), row);
       match != std::sregex_iterator(); ++match)
    documented.insert((*match)[1]);
  REQUIRE(documented == keys);
}
