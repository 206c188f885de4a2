// One description, three visitors: reading with its messages, writing, listing. The structs here
// look like real ones.
#include <array>
#include <utility>

#include "base/json.h"
#include "support/catch.h"

namespace {

struct Source {
  std::string prefix;
  double weight = 1;
};

struct Config {
  int64_t steps = 100;
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  bool compile = false;
  std::string name = "node";
  std::string codec = "int8";
  std::vector<Source> sources;
};

void describe(base::ConfigVisitor& v, Config& c) {
  v.text("name", c.name, "Name of the node.");
  v.section("optimizer", "How to step.", [&] {
    v.number("learning_rate", c.learning_rate, {0, 10}, "Peak learning rate.");
    v.number("beta1", c.beta1, {.minimum = 0}, "First moment.");
    v.integer("steps", c.steps, {1, 1000}, "Inner steps.");
  });
  v.section("outer", "Between nodes.", [&] {
    v.choice("codec", c.codec, {{"fp32", "int8"}}, "Codec of contributions.");
    v.boolean("compile", c.compile, "A switch.");
  });
  v.list(
      "sources", "Where tokens come from.", int64_t(c.sources.size()),
      [&](int64_t count) { c.sources.resize(size_t(count)); },
      [&](int64_t i) {
        v.text("prefix", c.sources[size_t(i)].prefix, "Path without suffix.");
        v.number("weight", c.sources[size_t(i)].weight, {}, "Share.");
      });
}

Config read(std::string_view text) {
  Config config;
  base::read_config(*base::JsonValue::parse(text), "run.json",
                    [&](base::ConfigVisitor& v) { describe(v, config); });
  return config;
}

// The message and the hint of the error that reading `text` must give.
std::pair<std::string, std::string> error_of(std::string_view text) {
  try {
    read(text);
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    return {error.what(), error.hint()};
  }
  return {"no exception", ""};
}

std::string message_of(std::string_view text) {
  return error_of(text).first;
}
std::string hint_of(std::string_view text) {
  return error_of(text).second;
}

std::string written(Config config) {
  return base::write_config([&](base::ConfigVisitor& v) { describe(v, config); });
}

}  // namespace

TEST_CASE("Fields that are present are read and the others keep their values", "[config]") {
  const Config config = read(R"({"optimizer": {"steps": 7, "learning_rate": 1},
                                 "outer": {"codec": "fp32", "compile": true},
                                 "sources": [{"prefix": "a"}, {"prefix": "b", "weight": 0.5}]})");
  REQUIRE(config.steps == 7);
  REQUIRE(config.learning_rate == 1);
  REQUIRE(config.beta1 == 0.9);
  REQUIRE(config.name == "node");
  REQUIRE(config.codec == "fp32");
  REQUIRE(config.compile);
  REQUIRE(config.sources.size() == 2);
  REQUIRE(config.sources[0].weight == 1);
  REQUIRE(config.sources[1].prefix == "b");
  REQUIRE(config.sources[1].weight == 0.5);
  REQUIRE(read("{}").steps == 100);
}

TEST_CASE("Values out of range or of the wrong type name source, path, range and find",
          "[config]") {
  REQUIRE(message_of(R"({"optimizer": {"steps": 0}})") ==
          "run.json: optimizer.steps: expected an integer from 1 to 1000, found 0");
  REQUIRE(message_of(R"({"optimizer": {"steps": 1.5}})") ==
          "run.json: optimizer.steps: expected an integer from 1 to 1000, found 1.5");
  REQUIRE(message_of(R"({"optimizer": {"steps": "7"}})") ==
          "run.json: optimizer.steps: expected an integer from 1 to 1000, found \"7\"");
  REQUIRE(message_of(R"({"optimizer": {"steps": 1e30}})") ==
          "run.json: optimizer.steps: expected an integer from 1 to 1000, found 1e+30");
  REQUIRE(message_of(R"({"optimizer": {"beta1": -1}})") ==
          "run.json: optimizer.beta1: expected a number, at least 0, found -1");
  REQUIRE(message_of(R"({"name": null})") == "run.json: name: expected a string, found null");
  REQUIRE(message_of(R"({"outer": {"compile": 1}})") ==
          "run.json: outer.compile: expected true or false, found 1");
  REQUIRE(message_of(R"({"outer": {"codec": "int9"}})") ==
          "run.json: outer.codec: expected one of fp32, int8, found \"int9\"");
  REQUIRE(message_of(R"({"outer": []})") == "run.json: outer: expected an object, found an array");
  REQUIRE(message_of(R"({"sources": {}})") ==
          "run.json: sources: expected an array of objects, found an object");
  REQUIRE(message_of(R"({"sources": [{}, 3]})") ==
          "run.json: sources[1]: expected an object, found 3");
  REQUIRE(message_of("[]") == "run.json: the document: expected an object, found an array");
  REQUIRE(read(R"({"optimizer": {"steps": 1e3}})").steps == 1000);
}

TEST_CASE("An unknown key is an error that names the nearest valid one", "[config]") {
  REQUIRE(message_of(R"({"optimizer": {"stepz": 1}})") == "run.json: optimizer.stepz: unknown key");
  REQUIRE(hint_of(R"({"optimizer": {"stepz": 1}})") == "did you mean optimizer.steps?");
  REQUIRE(hint_of(R"({"optimizer": {"lr": 1}})") == "did you mean optimizer.learning_rate?");
  REQUIRE(hint_of(R"({"optimiser": {}})") == "did you mean optimizer?");
  REQUIRE(message_of(R"({"sources": [{}, {"wieght": 1}]})") ==
          "run.json: sources[1].wieght: unknown key");
  REQUIRE(hint_of(R"({"sources": [{}, {"wieght": 1}]})") == "did you mean sources[1].weight?");
}

TEST_CASE("The nearest valid key may be in another section", "[config]") {
  REQUIRE(hint_of(R"({"learning_rate": 1})") == "did you mean optimizer.learning_rate?");
  REQUIRE(hint_of(R"({"optimizer": {"codec": "fp32"}})") == "did you mean outer.codec?");
  REQUIRE(hint_of(R"({"prefix": "a"})") == "did you mean sources[].prefix?");
}

TEST_CASE("What is written is read back the same", "[config]") {
  Config config;
  config.steps = 12;
  config.learning_rate = 0.1 + 0.2;
  config.name = "quote \" and \\";
  config.codec = "fp32";
  config.compile = true;
  config.sources = {{"a", 1.0 / 3}, {"b", 2}};
  const std::string text = written(config);
  const Config again = read(text);
  REQUIRE(again.learning_rate == config.learning_rate);
  REQUIRE(again.name == config.name);
  REQUIRE(again.sources[0].weight == config.sources[0].weight);
  REQUIRE(written(again) == text);
  REQUIRE(text != written(Config{}));
}

TEST_CASE("Keys are listed with type, default, range and help, lists with one element",
          "[config]") {
  Config config;
  const auto keys = base::list_config_keys([&](base::ConfigVisitor& v) { describe(v, config); });
  using Row = std::array<std::string, 5>;
  std::vector<Row> rows;
  for (const auto& key : keys) {
    rows.push_back({key.path, key.type, key.default_value, key.range, key.help});
  }
  const std::vector<Row> expected = {
      {"name", "text", "\"node\"", "", "Name of the node."},
      {"optimizer", "section", "", "", "How to step."},
      {"optimizer.learning_rate", "number", "0.001", "0 to 10", "Peak learning rate."},
      {"optimizer.beta1", "number", "0.9", "at least 0", "First moment."},
      {"optimizer.steps", "integer", "100", "1 to 1000", "Inner steps."},
      {"outer", "section", "", "", "Between nodes."},
      {"outer.codec", "choice", "\"int8\"", "fp32, int8", "Codec of contributions."},
      {"outer.compile", "boolean", "false", "", "A switch."},
      {"sources", "list", "", "", "Where tokens come from."},
      {"sources[].prefix", "text", "\"\"", "", "Path without suffix."},
      {"sources[].weight", "number", "1", "", "Share."},
  };
  REQUIRE(rows == expected);
}
