// Cuts a JSON file into records, without parsing them: what is wrong with one says nothing of the
// others, and a file may be larger than memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace data {

struct JsonRecord {
  int64_t line = 0;               // Counts from 1: where it begins.
  std::string_view text;          // JSON, if it is well formed.
  bool is_element = false;        // Of an array.
  const char* problem = nullptr;  // Why it cannot be cut out; `text` is then what is lost.
};

class JsonRecords {
 public:
  // kLines: a record per line. kValues: a record per value, and per element of an array.
  enum class Form { kLines, kValues };
  JsonRecords(std::string_view content, Form form);

  // Nothing at the end. Empty lines are no records.
  std::optional<JsonRecord> next();

 private:
  std::optional<JsonRecord> next_line();
  std::optional<JsonRecord> next_value();
  bool skip_to_value();
  JsonRecord take(size_t byte_count, const char* problem = nullptr);

  std::string_view rest_;
  const Form form_;
  int64_t line_ = 1;  // Of the first byte of rest_.
  bool is_in_array_ = false;
};

}  // namespace data
