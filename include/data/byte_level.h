// The alphabet of byte-level BPE (GPT-2): each byte is written as one printable letter, so that a
// vocabulary of byte strings can be kept as text. Printable bytes of Latin-1 are themselves, and
// the 68 others are U+0100 ... U+0143 in their order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace data {

// A letter in UTF-8.
std::string byte_level_letter(uint8_t byte);
// The bytes that a token in this alphabet means; nothing if it has a character of another.
std::optional<std::string> byte_level_bytes(std::string_view token);

}  // namespace data
