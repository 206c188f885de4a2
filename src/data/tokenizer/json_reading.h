// Fields of a tokenizer.json, of which each may be missing, null or of another type: what then is
// thrown names the file and the field.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace data {

class JsonReading {
 public:
  JsonReading(const std::string& path, std::string_view text);

  // Of the document.
  const base::JsonValue& document() const { return document_; }
  base::JsonValue get(const base::JsonValue& object, std::string_view key) const;
  base::JsonValue at(const base::JsonValue& array, int64_t index) const;
  // Nothing where the key is missing or null.
  std::optional<base::JsonValue> find(const base::JsonValue& object, std::string_view key) const;
  std::string text(const base::JsonValue& value) const;
  std::string text(const base::JsonValue& object, std::string_view key) const;
  int64_t integer(const base::JsonValue& value) const;
  // False where the key is missing or null.
  bool flag(const base::JsonValue& object, std::string_view key, bool otherwise = false) const;
  // The file is broken.
  base::Error broken(const std::string& what) const;
  // The file may be right, but is not for us.
  base::Error unsupported(const std::string& what) const;

 private:
  template <class T>
  T require(base::Result<T> result) const;
  const std::string path_;
  const base::JsonValue document_;
};

}  // namespace data
