#include "train/shared_config.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <map>
#include <set>
#include <string_view>

#include "base/json.h"

namespace train {
namespace {

constexpr const char* kSteps = "training.steps";
constexpr const char* kScheduleEnd = "optimizer.schedule.total_steps";
constexpr const char* kNothing = "nothing";
constexpr std::array<std::string_view, 5> kChangeable = {kSteps, "optimizer.learning_rate",
                                                         "swarm.fail_over", "swarm.tie_breaker",
                                                         "optimizer.schedule."};

using Values = std::map<std::string, std::string>;

// Every value that is not an object, under its path.
void flatten(const base::JsonValue& value, Values& values) {
  if (!value.is_object()) {
    values[value.path()] = value.dump();
    return;
  }
  for (const std::string& key : value.keys()) flatten(*value.get(key), values);
}

Values values_of(const std::string& text) {
  Values values;
  const auto document = base::JsonValue::parse(text);
  if (document && document->is_object()) flatten(*document, values);
  return values;
}

std::string at(const Values& values, const std::string& key) {
  const auto found = values.find(key);
  return found == values.end() ? kNothing : found->second;
}

bool follows_steps(const Values& values) {
  return at(values, kScheduleEnd) == at(values, kSteps);
}

}  // namespace

std::vector<ConfigDifference> shared_config_differences(const std::string& here,
                                                        const std::string& there) {
  const Values ours = values_of(here), theirs = values_of(there);
  if (ours.empty() || theirs.empty()) return {};
  std::set<std::string> keys;
  for (const Values& values : {ours, theirs})
    for (const auto& [key, value] : values) keys.insert(key);
  std::vector<ConfigDifference> differences;
  for (const std::string& key : keys) {
    if (at(ours, key) == at(theirs, key)) continue;
    if (key == kScheduleEnd && follows_steps(ours) && follows_steps(theirs)) continue;
    differences.push_back({.key = key, .here = at(ours, key), .there = at(theirs, key)});
  }
  return differences;
}

std::string difference_lines(const std::vector<ConfigDifference>& differences) {
  std::string lines;
  for (const ConfigDifference& difference : differences) {
    lines += fmt::format("{}{}: here {}, there {}", lines.empty() ? "" : "\n", difference.key,
                         difference.here, difference.there);
  }
  return lines;
}

// A name that ends in a point stands for the section.
bool may_change(const std::string& key) {
  return std::ranges::any_of(kChangeable, [&](std::string_view name) {
    return name.ends_with('.') ? key.starts_with(name) : key == name;
  });
}

std::string changeable_keys() {
  return fmt::format("{}, {}, {}, {} and the keys of {}", kChangeable[0], kChangeable[1],
                     kChangeable[2], kChangeable[3],
                     kChangeable[4].substr(0, kChangeable[4].size() - 1));
}

std::string change_hint(const std::vector<ConfigDifference>& differences) {
  constexpr const char* kOther =
      "go on with the config that the run was started with, or choose another node.run_directory";
  std::string options;
  for (const ConfigDifference& difference : differences) {
    if (!may_change(difference.key))
      return fmt::format("{} may not change in a run: {}", difference.key, kOther);
    options += fmt::format(" --change {}={}", difference.key, difference.here);
  }
  if (options.empty()) return kOther;
  return fmt::format(
      "to change it on purpose, start the coordinator and every node with{}; else {}", options,
      kOther);
}

}  // namespace train
