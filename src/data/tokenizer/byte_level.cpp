#include "data/byte_level.h"

#include <array>

#include "data/utf8.h"

namespace data {
namespace {

constexpr char32_t kFirstMoved = 0x100;

struct Alphabet {
  std::array<char32_t, 256> letters{};
  std::array<int, kFirstMoved + 68> bytes{};  // -1: no letter.

  constexpr Alphabet() {
    bytes.fill(-1);
    char32_t moved = kFirstMoved;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
      const char32_t letter = is_printable ? byte : moved++;
      letters[byte] = letter;
      bytes[letter] = int(byte);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::string byte_level_letter(uint8_t byte) {
  const char32_t letter = kAlphabet.letters[byte];
  if (letter < 0x80) return {char(letter)};
  return {char(0xC0 | letter >> 6), char(0x80 | (letter & 0x3F))};
}

std::optional<std::string> byte_level_bytes(std::string_view token) {
  std::string result;
  for (size_t i = 0; i < token.size();) {
    const Utf8Character character = character_at(token, i);
    if (character.code >= kAlphabet.bytes.size()) return std::nullopt;
    const int byte = kAlphabet.bytes[character.code];
    if (byte < 0) return std::nullopt;
    result += char(byte);
    i += character.bytes;
  }
  return result;
}

}  // namespace data
