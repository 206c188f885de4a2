// JSON in and out.
//
// Reading goes through a description of a struct's fields: one function describes each struct, and
// the same description reads it, writes it, lists its keys and checks their ranges (see
// ConfigVisitor). Other JSON (manifests, tokenizer files) is read through JsonValue.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace base {

// An immutable JSON value. Cheap to copy. Typed getters return a Failure that names the path and
// what was found, so that a corrupt file never becomes a bug; the caller turns it into whatever
// error fits. Integers may be written as 3, 3.0 or 3e0; those beyond int64_t (from 2^53 on with a
// point or an exponent) are a Failure.
class JsonValue {
 public:
  // Depth at most 64. A key that stands twice in one object is a Failure.
  static Result<JsonValue> parse(std::string_view text);

  bool is_object() const;
  bool is_array() const;
  bool has(std::string_view key) const;
  Result<JsonValue> get(std::string_view key) const;
  Result<JsonValue> at(int64_t index) const;
  int64_t count() const;                  // Elements or keys; 0 for everything else.
  std::vector<std::string> keys() const;  // Sorted.
  // "data.sources[0].prefix"; the document itself has an empty one.
  const std::string& path() const { return path_; }
  Result<std::string> as_string() const;
  Result<int64_t> as_integer() const;
  Result<double> as_number() const;
  Result<bool> as_boolean() const;
  std::string dump(int indent = -1) const;
  // "outer.fragments: expected <what>, found 0", for checks that go beyond the type.
  Failure unexpected(std::string_view expected) const;

  // A copy with the value at the dotted path (an array index counts as a name) replaced or added.
  // `text` is taken as JSON if it parses and as a string otherwise:
  //   --set optimizer.learning_rate=1e-3, --set node.name=left
  // Objects missing on the way are made; an index may be one past the end of its array. A Failure
  // says what stood in the way.
  Result<JsonValue> with(std::string_view dotted_path, std::string_view text) const;

 private:
  JsonValue(std::shared_ptr<const void> value, std::string path);
  // A value of the library that only json.cpp knows. It keeps the whole document alive.
  std::shared_ptr<const void> value_;
  std::string path_;
};

// Writes one JSON text, front to back. Keys keep the order in which they are written. Numbers are
// written so that reading gives the same bits; a number that is not finite becomes null.
class JsonWriter {
 public:
  explicit JsonWriter(int indent = -1) : indent_(indent) {}
  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(double number);
  JsonWriter& value(int64_t number);
  JsonWriter& value(int number) { return value(int64_t{number}); }
  JsonWriter& value(uint64_t number);
  JsonWriter& value(bool truth);
  JsonWriter& null();
  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    key(name);
    return value(v);
  }
  const std::string& text() const { return text_; }

 private:
  void separate();
  void new_line();
  void end(char bracket);
  JsonWriter& write(std::string_view literal);
  int indent_;
  std::string text_;
  std::vector<bool> has_items_;  // Per open object or array.
  bool after_key_ = false;
};

// What a field may hold and what it means; `help` is one sentence with the unit, shown in
// configs/README.md.
struct Range {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
};
struct Choices {
  std::vector<std::string_view> names;
};

// One struct is described once:
//
//   void describe(base::ConfigVisitor& v, AdamWConfig& c) {
//     v.number("learning_rate", c.learning_rate, {0, 10}, "Peak learning rate.");
//     ...
//   }
//
// and every visitor uses that: reading (ConfigReader), writing (ConfigWriter), listing
// (list_config_keys).
class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;
  virtual void integer(std::string_view name, int64_t& value, Range range,
                       std::string_view help) = 0;
  virtual void number(std::string_view name, double& value, Range range, std::string_view help) = 0;
  virtual void boolean(std::string_view name, bool& value, std::string_view help) = 0;
  virtual void text(std::string_view name, std::string& value, std::string_view help) = 0;
  virtual void choice(std::string_view name, std::string& value, const Choices& choices,
                      std::string_view help) = 0;
  // An object inside; `body` describes its fields with the same visitor.
  virtual void section(std::string_view name, std::string_view help,
                       const std::function<void()>& body) = 0;
  // An array of objects: `resize(n)` makes n elements, `body(i)` describes element i. When listing
  // keys, one element is described.
  virtual void list(std::string_view name, std::string_view help, int64_t count,
                    const std::function<void(int64_t)>& resize,
                    const std::function<void(int64_t)>& body) = 0;
};

// Reads `document` into the struct that `describe` describes. Fields that are absent keep their
// value. Throws bad_input for a wrong type, a value out of range, or an unknown key (with the
// nearest valid one in the hint); the struct is of no use then. `source` is the file's name:
//   run.json: outer.fragments: expected an integer from 1 to 32, found 0
//   run.json: optimizer.lr: unknown key. Hint: did you mean optimizer.learning_rate?
void read_config(const JsonValue& document, const std::string& source,
                 const std::function<void(ConfigVisitor&)>& describe);

// The struct as JSON text, every field with its value.
std::string write_config(const std::function<void(ConfigVisitor&)>& describe, int indent = 2);

struct ConfigKey {
  std::string path;  // "optimizer.learning_rate", "data.sources[].prefix"
  std::string type;  // "integer", "number", "boolean", "text", "choice", "section", "list"
  std::string default_value;
  std::string range;  // "1 to 64", "adamw, sgd", or empty
  std::string help;
};
std::vector<ConfigKey> list_config_keys(const std::function<void(ConfigVisitor&)>& describe);

}  // namespace base
