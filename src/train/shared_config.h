// What the nodes of a run share, as text (see shared_config()): how two of them differ, and which
// of that may change when a run goes on.
#pragma once

#include <string>
#include <vector>

namespace train {

// Values as JSON; "nothing" where a side does not have the key.
struct ConfigDifference {
  std::string key;
  std::string here;
  std::string there;
};

// By key. The end of the schedule is not named where it only follows training.steps. Any text will
// do, also one from the network: where one is no JSON object nothing can be named.
std::vector<ConfigDifference> shared_config_differences(const std::string& here,
                                                        const std::string& there);

// "training.steps: here 200, there 100", a line for each, none of them ended: for a refusal by a
// checkpoint, or by the coordinator.
std::string difference_lines(const std::vector<ConfigDifference>& differences);

// The rule: how long a run is and the learning rate over its steps, and nothing else.
bool may_change(const std::string& key);
// What may_change(), for people.
std::string changeable_keys();

// The hint of a refusal: the --change that would allow the differences, or that nothing does.
std::string change_hint(const std::vector<ConfigDifference>& differences);

}  // namespace train
