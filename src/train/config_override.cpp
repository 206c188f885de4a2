#include "train/config_override.h"

#include <algorithm>
#include <fmt/format.h>

#include "train/run_config.h"

namespace train {
namespace {

// "data.sources.0.prefix" as a list of keys spells it: "data.sources[].prefix".
std::string listed_path(const std::string& path) {
  std::string listed;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    const bool is_index =
        !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    listed += is_index ? "[]" : (begin == 0 ? "" : ".") + name;
    begin = end + 1;
  }
  return listed;
}

bool is_text(const std::string& key) {
  RunConfig defaults;
  const std::string path = listed_path(key);
  const auto keys = base::list_config_keys([&](base::ConfigVisitor& v) { describe(v, defaults); });
  return std::ranges::any_of(keys, [&](const base::ConfigKey& known) {
    return known.path == path && (known.type == "text" || known.type == "choice");
  });
}

// A text in quotes is the text inside them.
std::string as_json_text(const std::string& value) {
  const auto quoted = base::JsonValue::parse(value);
  if (quoted && quoted->as_string()) return value;
  return base::JsonWriter().value(value).text();
}

}  // namespace

std::string override_key(const std::string& option, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw base::bad_input(fmt::format("{} {}: expected key=value", option, text),
                          fmt::format("{} training.steps=100", option));
  }
  return text.substr(0, equals);
}

base::JsonValue apply_override(const base::JsonValue& document, const std::string& option,
                               const std::string& text) {
  const std::string key = override_key(option, text);
  const std::string value = text.substr(key.size() + 1);
  const auto changed = document.with(key, is_text(key) ? as_json_text(value) : value);
  if (!changed) throw base::bad_input(fmt::format("{} {}: {}", option, text, changed.reason()));
  return *changed;
}

}  // namespace train
