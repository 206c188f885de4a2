// Finding the end of a value takes only brackets and strings. Where that fails, objects that stand
// one after another are found again at the next line; in an array nothing behind can be trusted.
#include "data/json_records.h"

#include <algorithm>

namespace data {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kSpace = " \t\r\n";

// The byte behind the string that begins here; 0 if a line ends first, which no string may hold.
size_t end_of_string(std::string_view text, size_t begin) {
  for (size_t i = begin + 1; i < text.size() && text[i] != '\n'; ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return i + 1;
    }
  }
  return 0;
}

// The byte behind the value at the beginning; 0 if it has no end.
size_t end_of_value(std::string_view text) {
  if (text.front() == '"') return end_of_string(text, 0);
  if (text.front() != '{' && text.front() != '[') {
    return std::min(text.find_first_of(" \t\r\n,]", 1), text.size());
  }
  int64_t depth = 0;
  for (size_t i = 0; i < text.size();) {
    i = text.find_first_of("\"{}[]", i);
    if (i == std::string_view::npos) return 0;
    if (text[i] == '"') {
      i = end_of_string(text, i);
      if (i == 0) return 0;
      continue;
    }
    depth += text[i] == '{' || text[i] == '[' ? 1 : -1;
    ++i;
    if (depth == 0) return i;
  }
  return 0;
}

}  // namespace

JsonRecords::JsonRecords(ByteSource& source, Form form, int64_t value_bytes_max)
    : source_(source), form_(form), value_bytes_max_(size_t(value_bytes_max)) {
  source_.extend_to(kByteOrderMark.size());
  if (source_.window().starts_with(kByteOrderMark)) source_.skip(kByteOrderMark.size());
}

std::optional<JsonRecord> JsonRecords::next() {
  drop_lost();
  return form_ == Form::kLines ? next_line() : next_value();
}

JsonRecord JsonRecords::take(size_t byte_count, const char* problem) {
  const JsonRecord record = {.line = line_,
                             .text = source_.window().substr(0, byte_count),
                             .is_element = is_in_array_,
                             .problem = problem};
  line_ += std::ranges::count(record.text, '\n');
  source_.skip(record.text.size());
  return record;
}

// False at the end of the file.
bool JsonRecords::has_bytes() {
  source_.extend_to(1);
  return !source_.window().empty();
}

// The rest of a line without an end, or of an array: more than fits the window, where it has one.
void JsonRecords::drop_lost() {
  while (lost_ != Lost::kNothing && has_bytes()) {
    const size_t line_end = lost_ == Lost::kLine ? source_.window().find('\n') : std::string::npos;
    take(line_end);
    if (line_end != std::string_view::npos) break;
  }
  lost_ = Lost::kNothing;
}

// npos: it is longer than a value may be, and its end is not in the window.
size_t JsonRecords::find_line_end() {
  for (size_t searched = 0;;) {
    const size_t found = source_.window().find('\n', searched);
    if (found != std::string_view::npos) return found;
    searched = source_.window().size();
    if (source_.is_whole()) return searched;
    if (searched > value_bytes_max_) return std::string_view::npos;
    source_.extend();
  }
}

std::optional<JsonRecord> JsonRecords::next_line() {
  while (has_bytes()) {
    const size_t end = find_line_end();
    if (end == std::string_view::npos) {
      lost_ = Lost::kLine;
      return take(end, "a longer line than is allowed");
    }
    const JsonRecord line = take(end);
    if (!source_.window().empty()) take(1);
    if (line.text.find_first_not_of(kSpace) != std::string_view::npos) return line;
  }
  return std::nullopt;
}

// False at the end.
bool JsonRecords::skip_to_value() {
  while (has_bytes()) {
    take(std::min(source_.window().find_first_not_of(kSpace), source_.window().size()));
    if (source_.window().empty()) continue;
    const char first = source_.window().front();
    if (first == '[' && !is_in_array_) {
      is_in_array_ = true;
    } else if (first == ']' && is_in_array_) {
      is_in_array_ = false;
    } else if (first != ',' || !is_in_array_) {
      return true;
    }
    take(1);
  }
  return false;
}

// 0: it has no end.
size_t JsonRecords::find_value_end() {
  while (true) {
    const std::string_view window = source_.window().substr(0, value_bytes_max_);
    const size_t end = end_of_value(window);
    const bool is_all = source_.is_whole() || window.size() == value_bytes_max_;
    // In what comes behind a value without an end may have one, and a number may go on.
    if (is_all || (end > 0 && end < window.size())) return end;
    source_.extend();
  }
}

std::optional<JsonRecord> JsonRecords::next_value() {
  if (!skip_to_value()) {
    if (!is_in_array_) return std::nullopt;
    JsonRecord end = take(0, "the file ends inside an array");
    is_in_array_ = false;
    return end;
  }
  if (const size_t end = find_value_end(); end > 0) return take(end);
  const bool was_in_array = is_in_array_;
  const size_t line_end = source_.window().find('\n');
  if (was_in_array || line_end == std::string_view::npos)
    lost_ = was_in_array ? Lost::kAll : Lost::kLine;
  JsonRecord lost =
      was_in_array ? take(std::string_view::npos,
                          "a value without an end, or a longer one than is allowed; the rest of "
                          "the array is lost")
                   : take(line_end, "a value without an end, or a longer one than is allowed");
  is_in_array_ = false;
  return lost;
}

}  // namespace data
