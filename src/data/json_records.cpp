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

JsonRecords::JsonRecords(std::string_view content, Form form) : rest_(content), form_(form) {
  if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
}

std::optional<JsonRecord> JsonRecords::next() {
  return form_ == Form::kLines ? next_line() : next_value();
}

JsonRecord JsonRecords::take(size_t byte_count, const char* problem) {
  const JsonRecord record = {.line = line_,
                             .text = rest_.substr(0, byte_count),
                             .is_element = is_in_array_,
                             .problem = problem};
  line_ += std::ranges::count(record.text, '\n');
  rest_.remove_prefix(record.text.size());
  return record;
}

std::optional<JsonRecord> JsonRecords::next_line() {
  while (!rest_.empty()) {
    const JsonRecord line = take(rest_.find('\n'));
    if (!rest_.empty()) take(1);
    if (line.text.find_first_not_of(kSpace) != std::string_view::npos) return line;
  }
  return std::nullopt;
}

// False at the end.
bool JsonRecords::skip_to_value() {
  while (true) {
    take(std::min(rest_.find_first_not_of(kSpace), rest_.size()));
    if (rest_.empty()) return false;
    if (rest_.front() == '[' && !is_in_array_) {
      is_in_array_ = true;
    } else if (rest_.front() == ']' && is_in_array_) {
      is_in_array_ = false;
    } else if (rest_.front() != ',' || !is_in_array_) {
      return true;
    }
    take(1);
  }
}

std::optional<JsonRecord> JsonRecords::next_value() {
  if (!skip_to_value()) {
    if (!is_in_array_) return std::nullopt;
    JsonRecord end = take(0, "the file ends inside an array");
    is_in_array_ = false;
    return end;
  }
  if (const size_t end = end_of_value(rest_); end > 0) return take(end);
  if (!is_in_array_) return take(rest_.find('\n'), "a value without an end");
  JsonRecord lost = take(rest_.size(), "a value without an end; the rest of the array is lost");
  is_in_array_ = false;
  return lost;
}

}  // namespace data
