// Cuts a JSON file into records, without parsing them: what is wrong with one says nothing of the
// others, and a file may be larger than memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "data/byte_source.h"

namespace data {

struct JsonRecord {
  int64_t line = 0;               // Counts from 1: where it begins.
  std::string_view text;          // JSON, if it is well formed; until the next record.
  bool is_element = false;        // Of an array.
  const char* problem = nullptr;  // Why it cannot be cut out; `text` is then what is lost.
};

class JsonRecords {
 public:
  // kLines: a record per line. kValues: a record per value, and per element of an array.
  enum class Form { kLines, kValues };
  // `source` outlives the object. A value of more bytes than `value_bytes_max` is looked upon as
  // one without an end, so that the search for an end that is missing ends.
  JsonRecords(ByteSource& source, Form form, int64_t value_bytes_max);

  // Nothing at the end. Empty lines are no records.
  std::optional<JsonRecord> next();

 private:
  std::optional<JsonRecord> next_line();
  std::optional<JsonRecord> next_value();
  size_t find_value_end();
  bool skip_to_value();
  bool has_bytes();
  size_t find_line_end();
  JsonRecord take(size_t byte_count, const char* problem = nullptr);
  void drop_lost();

  ByteSource& source_;
  const Form form_;
  const size_t value_bytes_max_;
  int64_t line_ = 1;  // Of the first byte of the window.
  bool is_in_array_ = false;
  // What is still to be thrown away before the next record.
  enum class Lost { kNothing, kLine, kAll } lost_ = Lost::kNothing;
};

}  // namespace data
