// What two configs differ in, and what of it a run may change.
#include "train/shared_config.h"

#include "support/catch.h"
#include "train/run_config.h"

namespace {

train::RunConfig config_of(int64_t steps, int64_t schedule_end) {
  train::RunConfig config;
  config.training.steps = steps;
  config.optimizer.schedule.total_steps = schedule_end;
  return config;
}

std::string lines(const train::RunConfig& here, const train::RunConfig& there) {
  return train::difference_lines(
      train::shared_config_differences(train::shared_config(here), train::shared_config(there)));
}

}  // namespace

TEST_CASE("shared config: differences are named with both values") {
  train::RunConfig here = config_of(100, 100), there = here;
  REQUIRE(lines(here, there).empty());
  here.node.name = "left";  // Nobody else's business.
  here.training.batch_rows = 64;
  REQUIRE(lines(here, there).empty());
  here.name = "a \"run\"";
  here.optimizer.learning_rate = 1e-5;
  here.data.validation_fraction = 0.5;
  REQUIRE(lines(here, there) ==
          "data.validation_fraction: here 0.5, there 0.01\n"
          "name: here \"a \\\"run\\\"\", there \"atoll\"\n"
          "optimizer.learning_rate: here 1e-05, there 0.0004");
}

TEST_CASE("shared config: a schedule's end that follows the steps is no difference of its own") {
  REQUIRE(lines(config_of(200, 200), config_of(100, 100)) == "training.steps: here 200, there 100");
  REQUIRE(lines(config_of(200, 200), config_of(100, 200)) == "training.steps: here 200, there 100");
  REQUIRE(lines(config_of(100, 200), config_of(100, 100)) ==
          "optimizer.schedule.total_steps: here 200, there 100");
  REQUIRE(lines(config_of(200, 300), config_of(100, 100)) ==
          "optimizer.schedule.total_steps: here 300, there 100\n"
          "training.steps: here 200, there 100");
}

TEST_CASE("shared config: keys that a side lacks, and texts that are none") {
  const auto named = [](const char* here, const char* there) {
    return train::difference_lines(train::shared_config_differences(here, there));
  };
  REQUIRE(named(R"({"a": {"b": 1}})", R"({"a": {"c": [2]}})") ==
          "a.b: here 1, there nothing\na.c: here nothing, there [2]");
  REQUIRE(named(R"({"a": 1})", R"({"a": {"b": 1}})") ==
          "a: here 1, there nothing\na.b: here nothing, there 1");
  for (const char* text : {"", "{", "3", "[1]", "\xff", "{}"})
    REQUIRE(named(R"({"a": 1})", text).empty());
}

TEST_CASE("shared config: the length of a run and its learning rate may change") {
  for (const char* key :
       {"training.steps", "optimizer.learning_rate", "optimizer.schedule.kind",
        "optimizer.schedule.stable_steps", "swarm.fail_over", "swarm.tie_breaker"})
    REQUIRE(train::may_change(key));
  for (const char* key : {"seed", "training", "training.steps2", "optimizer.beta1", "outer.codec",
                          "model.layers", "optimizer.schedule", ""})
    REQUIRE_FALSE(train::may_change(key));
}

TEST_CASE("shared config: the hint says how to allow a change, or that it cannot be") {
  using train::ConfigDifference;
  const ConfigDifference steps{.key = "training.steps", .here = "200", .there = "100"};
  const ConfigDifference rate{.key = "optimizer.learning_rate", .here = "0.1", .there = "0.2"};
  const ConfigDifference seed{.key = "seed", .here = "1", .there = "2"};
  REQUIRE(train::change_hint({rate, steps})
              .find(" --change optimizer.learning_rate=0.1 --change training.steps=200;") !=
          std::string::npos);
  REQUIRE(train::change_hint({rate, seed}).starts_with("seed may not change"));
  REQUIRE(train::change_hint({rate, seed}).find("--change") == std::string::npos);
}
