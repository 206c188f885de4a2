// One line of `atoll doctor`.
#pragma once

#include <string>
#include <vector>

namespace train {

enum class CheckLevel { kOk, kWarn, kFail };

struct Check {
  std::string name;  // "memory"
  CheckLevel level = CheckLevel::kOk;
  std::string value;   // What was found.
  std::string advice;  // What to do about it; empty where it is well.
};

using Checks = std::vector<Check>;

}  // namespace train
