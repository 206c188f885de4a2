// Little-endian numbers in a mapped file, which need not be aligned, and what to say of a file
// whose numbers do not fit together.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"

namespace data {

// REQUIRES: the number lies within `bytes`.
template <class T>
T load_number(std::span<const std::byte> bytes, int64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// Tokens of type T as ids; those beyond int32 become negative, which is no id.
template <class T>
void copy_tokens(const std::byte* source, std::span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T token;
    std::memcpy(&token, source + i * sizeof(T), sizeof(T));
    out[i] = int32_t(token);
  }
}

inline base::Error damaged_dataset(const std::string& path, const std::string& found) {
  return base::bad_input(
      fmt::format("cannot read {}: {}", path, found),
      "the file is damaged or not a token dataset; make it again, or copy it again");
}

}  // namespace data
