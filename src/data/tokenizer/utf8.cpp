// After table 3-7 of the Unicode Standard: which bytes may follow the first one.
#include "data/utf8.h"

#include <algorithm>
#include <cstring>

namespace data {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

struct Lead {
  size_t bytes = 0;  // Of the character; 0: no character begins so.
  uint8_t second_min = 0x80, second_max = 0xBF;
};

Lead lead_of(uint8_t first) {
  if (first >= 0xC2 && first <= 0xDF) return {.bytes = 2};
  if (first == 0xE0) return {.bytes = 3, .second_min = 0xA0};
  if (first == 0xED) return {.bytes = 3, .second_max = 0x9F};
  if (first >= 0xE1 && first <= 0xEF) return {.bytes = 3};
  if (first == 0xF0) return {.bytes = 4, .second_min = 0x90};
  if (first >= 0xF1 && first <= 0xF3) return {.bytes = 4};
  if (first == 0xF4) return {.bytes = 4, .second_max = 0x8F};
  return {};
}

// The first byte at or behind `position` that is not ASCII.
size_t skip_ascii(std::string_view text, size_t position) {
  for (; position + 8 <= text.size(); position += 8) {
    uint64_t eight;
    std::memcpy(&eight, text.data() + position, 8);
    if (eight & 0x8080808080808080) break;
  }
  while (position < text.size() && uint8_t(text[position]) < 0x80) ++position;
  return position;
}

}  // namespace

Utf8Character character_at(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return uint8_t(text[position + i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {.code = first, .bytes = 1, .is_valid = true};
  const Lead lead = lead_of(first);
  if (lead.bytes == 0) return {.code = 0xFFFD, .bytes = 1};
  char32_t code = first & (0x7F >> lead.bytes);
  const size_t available = std::min(lead.bytes, text.size() - position);
  for (size_t i = 1; i < available; ++i) {
    const uint8_t low = i == 1 ? lead.second_min : 0x80, high = i == 1 ? lead.second_max : 0xBF;
    if (byte(i) < low || byte(i) > high) return {.code = 0xFFFD, .bytes = i};
    code = code << 6 | (byte(i) & 0x3F);
  }
  if (available < lead.bytes) return {.code = 0xFFFD, .bytes = available};
  return {.code = code, .bytes = lead.bytes, .is_valid = true};
}

size_t previous_character(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (uint8_t(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

size_t valid_utf8_bytes(std::string_view text) {
  size_t position = skip_ascii(text, 0);
  while (position < text.size()) {
    const Utf8Character character = character_at(text, position);
    if (!character.is_valid) return position;
    position += character.bytes;
    if (position < text.size() && uint8_t(text[position]) < 0x80)
      position = skip_ascii(text, position);
  }
  return text.size();
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size() + kReplacement.size());
  while (!text.empty()) {
    const size_t valid = valid_utf8_bytes(text);
    result += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    result += kReplacement;
    text.remove_prefix(character_at(text, 0).bytes);
  }
  return result;
}

}  // namespace data
