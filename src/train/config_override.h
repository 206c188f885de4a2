// "key=value" on the command line.
#pragma once

#include <string>

#include "base/json.h"

namespace train {

// The key of "key=value"; throws bad_input if there is none. `option` is what it was given with,
// "--set" or "--change".
std::string override_key(const std::string& option, const std::string& text);

// A copy of the config's document with that value. The key's type says how it is read:
// node.name=12345678 is a text, training.steps=100 a number. Throws bad_input.
base::JsonValue apply_override(const base::JsonValue& document, const std::string& option,
                               const std::string& text);

}  // namespace train
