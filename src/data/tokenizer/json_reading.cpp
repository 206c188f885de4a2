#include "data/tokenizer/json_reading.h"

namespace data {
namespace {

base::Error broken_file(const std::string& path, const std::string& what) {
  return base::bad_input(fmt::format("cannot read the tokenizer {}: {}", path, what),
                         "the file is damaged or not a tokenizer.json");
}

base::JsonValue parse(const std::string& path, std::string_view text) {
  auto document = base::JsonValue::parse(text);
  if (!document) throw broken_file(path, document.reason());
  return *document;
}

bool is_null(const base::JsonValue& value) {
  return value.dump() == "null";
}

}  // namespace

JsonReading::JsonReading(const std::string& path, std::string_view text)
    : path_(path), document_(parse(path, text)) {}

base::Error JsonReading::broken(const std::string& what) const {
  return broken_file(path_, what);
}

base::Error JsonReading::unsupported(const std::string& what) const {
  return base::bad_input(
      fmt::format("cannot use the tokenizer {}: {} is not supported", path_, what),
      "supported is byte-level BPE as of GPT-2, Llama 3 and Qwen: normalizer NFC or none, "
      "pre-tokenizer ByteLevel, alone or behind Split and Digits");
}

template <class T>
T JsonReading::require(base::Result<T> result) const {
  if (!result) throw broken(result.reason());
  return std::move(*result);
}

base::JsonValue JsonReading::get(const base::JsonValue& object, std::string_view key) const {
  return require(object.get(key));
}
base::JsonValue JsonReading::at(const base::JsonValue& array, int64_t index) const {
  return require(array.at(index));
}

std::optional<base::JsonValue> JsonReading::find(const base::JsonValue& object,
                                                 std::string_view key) const {
  if (!object.has(key)) return std::nullopt;
  base::JsonValue value = get(object, key);
  // Only a scalar can be null, and only a scalar is quickly written.
  if (!value.is_object() && !value.is_array() && is_null(value)) return std::nullopt;
  return value;
}

std::string JsonReading::text(const base::JsonValue& value) const {
  return require(value.as_string());
}
std::string JsonReading::text(const base::JsonValue& object, std::string_view key) const {
  return text(get(object, key));
}
int64_t JsonReading::integer(const base::JsonValue& value) const {
  return require(value.as_integer());
}
bool JsonReading::flag(const base::JsonValue& object, std::string_view key, bool otherwise) const {
  const auto value = find(object, key);
  return value ? require(value->as_boolean()) : otherwise;
}

}  // namespace data
