// Characters of UTF-8 text, and what to do where it has none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace data {

struct Utf8Character {
  char32_t code = 0;  // U+FFFD where there is no character.
  size_t bytes = 0;   // At least 1; of what is no character the maximal part that could begin one.
  bool is_valid = false;
};

// REQUIRES: position < text.size().
Utf8Character character_at(std::string_view text, size_t position);
// Where the character that ends at `end` begins. REQUIRES: valid text, 0 < end.
size_t previous_character(std::string_view text, size_t end);

// The byte from which on the text is not valid; text.size() if it is.
size_t valid_utf8_bytes(std::string_view text);
// Each part that is no character becomes U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace data
