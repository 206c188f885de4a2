// JSON values and the JSON writer, on nlohmann-json. The only file that knows that library:
// everything else, the configuration too (config.cpp), is written against JsonValue and JsonWriter.
#include "base/json.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace base {
namespace {

using nlohmann::json;

constexpr size_t kDepthMax = 64;

const json& json_of(const std::shared_ptr<const void>& value) {
  return *static_cast<const json*>(value.get());
}

// Builds the document from the parser's events, because the library's own builder accepts duplicate
// keys and any depth.
class DocumentBuilder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool truth) override { return add(truth); }
  bool number_integer(number_integer_t number) override { return add(number); }
  bool number_unsigned(number_unsigned_t number) override { return add(number); }
  bool number_float(number_float_t number, const string_t&) override { return add(number); }
  bool string(string_t& text) override { return add(std::move(text)); }
  bool binary(binary_t&) override { return fail("binary data"); }
  bool start_object(size_t) override { return add(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return add(json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [member, is_new] = open_.back()->get_ref<json::object_t&>().emplace(name, nullptr);
    if (!is_new) return fail(fmt::format("the key \"{}\" stands twice in one object", name));
    member_ = &member->second;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string message = error.what();
    const size_t tag_end = message.find("] ");
    return fail(tag_end == std::string::npos ? message : message.substr(tag_end + 2));
  }

  json& document() { return document_; }
  const std::string& reason() const { return reason_; }

 private:
  bool add(json value) {
    json* place = &document_;
    if (member_) {
      place = std::exchange(member_, nullptr);
    } else if (!open_.empty()) {
      place = &open_.back()->emplace_back(nullptr);
    }
    *place = std::move(value);
    if (!place->is_structured()) return true;
    if (open_.size() == kDepthMax) return fail(fmt::format("deeper than {} levels", kDepthMax));
    open_.push_back(place);
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  bool fail(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

  json document_;
  // Objects and arrays, outermost first. Closed ones may move, open ones do not.
  std::vector<json*> open_;
  json* member_ = nullptr;  // The value of the key just read.
  std::string reason_;
};

Result<json> parse_document(std::string_view text) {
  DocumentBuilder builder;
  if (!json::sax_parse(text, &builder)) return Failure{builder.reason()};
  return std::move(builder.document());
}

std::string dump_text(const json& value, int indent) {
  // Invalid UTF-8 from a program string (a file name, say) must not make the text unreadable.
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

// What a message shows of a value: all of a short one, the beginning of a long one.
std::string excerpt(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  constexpr size_t kExcerptBytesMax = 60;
  std::string text = dump_text(value, -1);
  if (text.size() > kExcerptBytesMax) text = text.substr(0, kExcerptBytesMax) + "...";
  return text;
}

std::optional<int64_t> exact_integer(const json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > uint64_t(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return int64_t(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  // From 2^53 on a double no longer says which integer was written.
  const double number = value.get<double>();
  if (std::abs(number) >= 0x1p53 || number != std::trunc(number)) return std::nullopt;
  return int64_t(number);
}

std::optional<size_t> parse_index(std::string_view text) {
  size_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return index;
}

// The place of one name inside `parent`, made if it is not there yet.
Result<json*> find_or_make(json& parent, std::string_view name) {
  if (name.empty()) return Failure{"a name between the dots is empty"};
  if (parent.is_null()) parent = json::object();
  if (parent.is_object()) return &parent[std::string(name)];
  if (!parent.is_array()) {
    return Failure{
        fmt::format("\"{}\" would be inside {}, which is not an object", name, excerpt(parent))};
  }
  const auto index = parse_index(name);
  if (!index || *index > parent.size()) {
    return Failure{
        fmt::format("expected an array index from 0 to {}, found \"{}\"", parent.size(), name)};
  }
  if (*index == parent.size()) parent.push_back(nullptr);
  return &parent[*index];
}

}  // namespace

JsonValue::JsonValue(std::shared_ptr<const void> value, std::string path)
    : value_(std::move(value)), path_(std::move(path)) {}

Result<JsonValue> JsonValue::parse(std::string_view text) {
  auto document = parse_document(text);
  if (!document) return Failure{document.reason()};
  return JsonValue(std::make_shared<const json>(std::move(*document)), "");
}

Failure JsonValue::unexpected(std::string_view expected) const {
  return Failure{fmt::format("{}: expected {}, found {}", path_.empty() ? "the document" : path_,
                             expected, excerpt(json_of(value_)))};
}

bool JsonValue::is_object() const {
  return json_of(value_).is_object();
}
bool JsonValue::is_array() const {
  return json_of(value_).is_array();
}

bool JsonValue::has(std::string_view key) const {
  const json& value = json_of(value_);
  return value.is_object() && value.contains(key);
}

Result<JsonValue> JsonValue::get(std::string_view key) const {
  const json& value = json_of(value_);
  if (!value.is_object()) return unexpected("an object");
  const std::string path = path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  const auto member = value.find(key);
  if (member == value.end()) return Failure{fmt::format("{}: missing", path)};
  // Points at the member and owns the document.
  return JsonValue(std::shared_ptr<const void>(value_, &*member), path);
}

Result<JsonValue> JsonValue::at(int64_t index) const {
  const json& value = json_of(value_);
  if (!value.is_array()) return unexpected("an array");
  if (index < 0 || index >= int64_t(value.size())) {
    return unexpected(fmt::format("more than {} elements", index));
  }
  const std::string path = fmt::format("{}[{}]", path_, index);
  return JsonValue(std::shared_ptr<const void>(value_, &value[size_t(index)]), path);
}

int64_t JsonValue::count() const {
  const json& value = json_of(value_);
  return value.is_structured() ? int64_t(value.size()) : 0;
}

std::vector<std::string> JsonValue::keys() const {
  std::vector<std::string> names;
  const json& value = json_of(value_);
  if (!value.is_object()) return names;
  for (const auto& [name, member] : value.items()) names.push_back(name);
  return names;
}

Result<std::string> JsonValue::as_string() const {
  const json& value = json_of(value_);
  if (!value.is_string()) return unexpected("a string");
  return value.get<std::string>();
}

Result<int64_t> JsonValue::as_integer() const {
  const auto number = exact_integer(json_of(value_));
  if (!number) return unexpected("an integer");
  return *number;
}

Result<double> JsonValue::as_number() const {
  const json& value = json_of(value_);
  if (!value.is_number()) return unexpected("a number");
  return value.get<double>();
}

Result<bool> JsonValue::as_boolean() const {
  const json& value = json_of(value_);
  if (!value.is_boolean()) return unexpected("true or false");
  return value.get<bool>();
}

std::string JsonValue::dump(int indent) const {
  return dump_text(json_of(value_), indent);
}

Result<JsonValue> JsonValue::with(std::string_view dotted_path, std::string_view text) const {
  auto document = std::make_shared<json>(json_of(value_));
  json* place = document.get();
  size_t depth = 0;
  for (bool is_last = false; !is_last; ++depth) {
    const size_t dot = dotted_path.find('.');
    is_last = dot == std::string_view::npos;
    const auto next = find_or_make(*place, dotted_path.substr(0, dot));
    if (!next) return Failure{next.reason()};
    if (depth == kDepthMax) return Failure{fmt::format("deeper than {} levels", kDepthMax)};
    place = *next;
    if (!is_last) dotted_path.remove_prefix(dot + 1);
  }
  auto value = parse_document(text);
  *place = value ? std::move(*value) : json(text);
  return JsonValue(std::move(document), path_);
}

void JsonWriter::new_line() {
  if (indent_ < 0) return;
  text_ += '\n';
  text_.append(size_t(indent_) * has_items_.size(), ' ');
}

// Before a key, or before a value that has none.
void JsonWriter::separate() {
  if (std::exchange(after_key_, false)) return;
  if (has_items_.empty()) {
    CHECK(text_.empty(), "a second value after the end of the text");
    return;
  }
  if (has_items_.back()) text_ += ',';
  has_items_.back() = true;
  new_line();
}

JsonWriter& JsonWriter::begin_object() {
  separate();
  text_ += '{';
  has_items_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::begin_array() {
  separate();
  text_ += '[';
  has_items_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::end_object() {
  end('}');
  return *this;
}

JsonWriter& JsonWriter::end_array() {
  end(']');
  return *this;
}

void JsonWriter::end(char bracket) {
  CHECK(!has_items_.empty() && !after_key_, "nothing to end, or a key without a value");
  const bool had_items = has_items_.back();
  has_items_.pop_back();
  if (had_items) new_line();
  text_ += bracket;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  text_ += dump_text(json(name), -1);
  text_ += indent_ < 0 ? ":" : ": ";
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::write(std::string_view literal) {
  separate();
  text_ += literal;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) {
  return write(dump_text(json(text), -1));
}
JsonWriter& JsonWriter::value(int64_t number) {
  return write(fmt::format("{}", number));
}
JsonWriter& JsonWriter::value(uint64_t number) {
  return write(fmt::format("{}", number));
}
JsonWriter& JsonWriter::value(bool truth) {
  return write(truth ? "true" : "false");
}
JsonWriter& JsonWriter::null() {
  return write("null");
}

JsonWriter& JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();
  // Readers take "-0" for an integer, which has no sign of zero.
  if (number == 0 && std::signbit(number)) return write("-0.0");
  return write(fmt::format("{}", number));  // The shortest digits that give the same bits.
}

}  // namespace base
