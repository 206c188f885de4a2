// Cuts a text file into documents: at separators, and where one is too long.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "data/byte_source.h"

namespace data {

struct TextRecord {
  std::string_view text;  // Until the next record.
  bool is_cut = false;    // The first part of a text that was too long.
};

class TextRecords {
 public:
  // `source` outlives the object. An empty separator: the file is one text. With one, what is only
  // white space is no text.
  TextRecords(ByteSource& source, std::string separator, int64_t text_bytes_max)
      : source_(source),
        separator_(std::move(separator)),
        text_bytes_max_(size_t(text_bytes_max)) {}

  // Nothing at the end.
  std::optional<TextRecord> next();

 private:
  size_t find_end();

  ByteSource& source_;
  const std::string separator_;
  const size_t text_bytes_max_;
  bool is_inside_ = false;  // Of a text whose first part has been returned.
};

}  // namespace data
