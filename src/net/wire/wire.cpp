// Which texts may come in: printable UTF-8. Anything else could break the JSON of the metrics, or
// steer the terminal on which somebody reads the log.
#include "net/wire/wire.h"

#include <algorithm>
#include <array>

namespace net {
namespace {

// Bytes of the character at the front of `text`; 0 if it is none, or not printable. REQUIRES:
// `text` is not empty.
size_t character_bytes(std::string_view text) {
  const auto first = uint8_t(text[0]);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  if (first < 0xc0 || first >= 0xf8) return 0;
  const size_t byte_count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (text.size() < byte_count) return 0;
  uint32_t code = first & (0x7fu >> byte_count);
  for (const char next : text.substr(1, byte_count - 1)) {
    if ((uint8_t(next) & 0xc0) != 0x80) return 0;
    code = code << 6 | (uint8_t(next) & 0x3fu);
  }
  // Smaller codes have a shorter form; those from 0x80 to 0x9f are control characters.
  constexpr std::array<uint32_t, 5> kSmallestCode = {0, 0, 0xa0, 0x800, 0x10000};
  const bool is_surrogate = code >= 0xd800 && code < 0xe000;
  return code < kSmallestCode[byte_count] || code > 0x10ffff || is_surrogate ? 0 : byte_count;
}

}  // namespace

bool is_printable(std::string_view text) {
  while (!text.empty()) {
    const size_t byte_count = character_bytes(text);
    if (byte_count == 0) return false;
    text.remove_prefix(byte_count);
  }
  return true;
}

std::string make_printable(std::string_view text, int64_t bytes_max) {
  std::string result;
  while (!text.empty()) {
    const size_t byte_count = character_bytes(text);
    const std::string_view character = byte_count == 0 ? "?" : text.substr(0, byte_count);
    if (int64_t(result.size() + character.size()) > bytes_max) break;
    result += character;
    text.remove_prefix(std::max<size_t>(byte_count, 1));
  }
  return result;
}

}  // namespace net
