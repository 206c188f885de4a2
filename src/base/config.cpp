// The three visitors behind base/json.h: the reader, the writer and the lister of keys. They see
// JSON through JsonValue and JsonWriter only.
#include <algorithm>
#include <fmt/ranges.h>
#include <optional>
#include <utility>

#include "base/json.h"

namespace base {
namespace {

// "1 to 64", "at least 1", "at most 64", or empty.
std::string range_text(const Range& range) {
  const bool has_minimum = range.minimum > -std::numeric_limits<double>::infinity();
  const bool has_maximum = range.maximum < std::numeric_limits<double>::infinity();
  if (has_minimum && has_maximum) return fmt::format("{} to {}", range.minimum, range.maximum);
  if (has_minimum) return fmt::format("at least {}", range.minimum);
  if (has_maximum) return fmt::format("at most {}", range.maximum);
  return {};
}

// "an integer from 1 to 64", "a number, at least 0", "a number".
std::string expectation(std::string_view type, const Range& range) {
  const std::string limits = range_text(range);
  if (limits.empty()) return std::string(type);
  return fmt::format("{}{}{}", type, limits.starts_with("at ") ? ", " : " from ", limits);
}

std::string joined(const Choices& choices) {
  return fmt::format("{}", fmt::join(choices.names, ", "));
}

std::string join_path(const std::string& section, std::string_view name) {
  return section.empty() ? std::string(name) : fmt::format("{}.{}", section, name);
}

// Levenshtein's: the fewest insertions, deletions and replacements of letters that turn one word
// into the other.
int64_t edit_distance(std::string_view from, std::string_view to) {
  std::vector<int64_t> row(to.size() + 1);
  for (size_t j = 0; j <= to.size(); ++j) row[j] = int64_t(j);
  for (size_t i = 1; i <= from.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = int64_t(i);
    for (size_t j = 1; j <= to.size(); ++j) {
      const int64_t replaced = diagonal + (from[i - 1] == to[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[to.size()];
}

// "lr" for "learning_rate", "warmup" for "warmup_steps": the same first letter, the others in the
// same order.
bool is_abbreviation(std::string_view word, std::string_view full) {
  if (word.empty() || full.empty() || word[0] != full[0]) return false;
  size_t matched = 0;
  for (const char c : full) {
    if (matched < word.size() && word[matched] == c) ++matched;
  }
  return matched == word.size();
}

// How unlikely it is that `written` was meant to be `valid`.
int64_t strangeness(std::string_view written, std::string_view valid) {
  const int64_t distance = edit_distance(written, valid);
  return is_abbreviation(written, valid) ? std::min<int64_t>(distance, 2) : distance;
}

// Records what a description contains.
class KeyLister : public ConfigVisitor {
 public:
  void integer(std::string_view name, int64_t& value, Range range, std::string_view help) override {
    add(name, "integer", JsonWriter().value(value).text(), range_text(range), help);
  }
  void number(std::string_view name, double& value, Range range, std::string_view help) override {
    add(name, "number", JsonWriter().value(value).text(), range_text(range), help);
  }
  void boolean(std::string_view name, bool& value, std::string_view help) override {
    add(name, "boolean", JsonWriter().value(value).text(), "", help);
  }
  void text(std::string_view name, std::string& value, std::string_view help) override {
    add(name, "text", JsonWriter().value(value).text(), "", help);
  }
  void choice(std::string_view name, std::string& value, const Choices& choices,
              std::string_view help) override {
    add(name, "choice", JsonWriter().value(value).text(), joined(choices), help);
  }
  void section(std::string_view name, std::string_view help,
               const std::function<void()>& body) override {
    add(name, "section", "", "", help);
    const std::string outer = std::exchange(section_, join_path(section_, name));
    body();
    section_ = outer;
  }
  void list(std::string_view name, std::string_view help, int64_t,
            const std::function<void(int64_t)>& resize,
            const std::function<void(int64_t)>& body) override {
    add(name, "list", "", "", help);
    const std::string outer = std::exchange(section_, join_path(section_, name) + "[]");
    resize(1);
    body(0);
    section_ = outer;
  }

  std::vector<ConfigKey> keys;

 private:
  void add(std::string_view name, std::string_view type, std::string default_value,
           std::string range, std::string_view help) {
    keys.push_back({.path = join_path(section_, name),
                    .type = std::string(type),
                    .default_value = std::move(default_value),
                    .range = std::move(range),
                    .help = std::string(help)});
  }

  std::string section_;
};

// Writes every field with its value.
class ConfigWriter : public ConfigVisitor {
 public:
  explicit ConfigWriter(int indent) : writer_(indent) {}

  void integer(std::string_view name, int64_t& value, Range, std::string_view) override {
    writer_.field(name, value);
  }
  void number(std::string_view name, double& value, Range, std::string_view) override {
    writer_.field(name, value);
  }
  void boolean(std::string_view name, bool& value, std::string_view) override {
    writer_.field(name, value);
  }
  void text(std::string_view name, std::string& value, std::string_view) override {
    writer_.field(name, value);
  }
  void choice(std::string_view name, std::string& value, const Choices&,
              std::string_view) override {
    writer_.field(name, value);
  }
  void section(std::string_view name, std::string_view,
               const std::function<void()>& body) override {
    writer_.key(name).begin_object();
    body();
    writer_.end_object();
  }
  void list(std::string_view name, std::string_view, int64_t count,
            const std::function<void(int64_t)>&,
            const std::function<void(int64_t)>& body) override {
    writer_.key(name).begin_array();
    for (int64_t i = 0; i < count; ++i) {
      writer_.begin_object();
      body(i);
      writer_.end_object();
    }
    writer_.end_array();
  }

  JsonWriter& writer() { return writer_; }

 private:
  JsonWriter writer_;
};

// Reads the fields that are present and remembers the names that were asked for, so that the other
// keys are unknown ones.
class ConfigReader : public ConfigVisitor {
 public:
  ConfigReader(std::string source, const std::function<void(ConfigVisitor&)>& describe)
      : source_(std::move(source)), describe_(describe) {}

  void read_object(const JsonValue& object, const std::function<void()>& body) {
    if (!object.is_object()) fail(object, "an object");
    const Scope outer = std::exchange(scope_, {.object = &object, .known = {}});
    body();
    for (const std::string& key : object.keys()) {
      if (std::find(scope_.known.begin(), scope_.known.end(), key) == scope_.known.end()) {
        fail_unknown(key);
      }
    }
    scope_ = outer;
  }

  void integer(std::string_view name, int64_t& value, Range range, std::string_view) override {
    const auto found = find(name);
    if (!found) return;
    const auto number = found->as_integer();
    if (!number || !contains(range, double(*number))) {
      fail(*found, expectation("an integer", range));
    }
    value = *number;
  }

  void number(std::string_view name, double& value, Range range, std::string_view) override {
    const auto found = find(name);
    if (!found) return;
    const auto number = found->as_number();
    if (!number || !contains(range, *number)) fail(*found, expectation("a number", range));
    value = *number;
  }

  void boolean(std::string_view name, bool& value, std::string_view) override {
    const auto found = find(name);
    if (!found) return;
    const auto truth = found->as_boolean();
    if (!truth) fail(*found, "true or false");
    value = *truth;
  }

  void text(std::string_view name, std::string& value, std::string_view) override {
    const auto found = find(name);
    if (!found) return;
    auto text = found->as_string();
    if (!text) fail(*found, "a string");
    value = std::move(*text);
  }

  void choice(std::string_view name, std::string& value, const Choices& choices,
              std::string_view) override {
    const auto found = find(name);
    if (!found) return;
    auto text = found->as_string();
    const auto& names = choices.names;
    if (!text || std::find(names.begin(), names.end(), *text) == names.end()) {
      fail(*found, "one of " + joined(choices));
    }
    value = std::move(*text);
  }

  void section(std::string_view name, std::string_view,
               const std::function<void()>& body) override {
    if (const auto found = find(name)) read_object(*found, body);
  }

  void list(std::string_view name, std::string_view, int64_t,
            const std::function<void(int64_t)>& resize,
            const std::function<void(int64_t)>& body) override {
    const auto found = find(name);
    if (!found) return;
    if (!found->is_array()) fail(*found, "an array of objects");
    resize(found->count());
    for (int64_t i = 0; i < found->count(); ++i) {
      read_object(*found->at(i), [&] { body(i); });
    }
  }

 private:
  // The object whose fields are being read.
  struct Scope {
    const JsonValue* object = nullptr;
    std::vector<std::string> known;
  };

  static bool contains(const Range& range, double value) {
    return value >= range.minimum && value <= range.maximum;
  }

  std::optional<JsonValue> find(std::string_view name) {
    scope_.known.emplace_back(name);
    if (!scope_.object->has(name)) return std::nullopt;
    return *scope_.object->get(name);
  }

  [[noreturn]] void fail(const JsonValue& found, std::string_view expected) const {
    throw bad_input(fmt::format("{}: {}", source_, found.unexpected(expected).reason));
  }

  // The key may be misspelt, or stand in the wrong section.
  [[noreturn]] void fail_unknown(const std::string& key) const {
    const std::string& section = scope_.object->path();
    std::string nearest;
    int64_t least = std::numeric_limits<int64_t>::max();
    const auto consider = [&](const std::string& path, int64_t cost) {
      if (cost < least) {
        least = cost;
        nearest = path;
      }
    };
    for (const std::string& name : scope_.known) {
      consider(join_path(section, name), strangeness(key, name));
    }
    for (const ConfigKey& valid : list_config_keys(describe_)) {
      const std::string name = valid.path.substr(valid.path.rfind('.') + 1);
      consider(valid.path, 1 + strangeness(key, name));
    }
    throw bad_input(fmt::format("{}: {}: unknown key", source_, join_path(section, key)),
                    nearest.empty() ? "" : fmt::format("did you mean {}?", nearest));
  }

  const std::string source_;
  const std::function<void(ConfigVisitor&)>& describe_;
  Scope scope_;
};

}  // namespace

void read_config(const JsonValue& document, const std::string& source,
                 const std::function<void(ConfigVisitor&)>& describe) {
  ConfigReader reader(source, describe);
  reader.read_object(document, [&] { describe(reader); });
}

std::string write_config(const std::function<void(ConfigVisitor&)>& describe, int indent) {
  ConfigWriter writer(indent);
  writer.writer().begin_object();
  describe(writer);
  writer.writer().end_object();
  return writer.writer().text();
}

std::vector<ConfigKey> list_config_keys(const std::function<void(ConfigVisitor&)>& describe) {
  KeyLister lister;
  describe(lister);
  return std::move(lister.keys);
}

}  // namespace base
