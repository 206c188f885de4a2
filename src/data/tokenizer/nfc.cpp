// Most text is in the form already. Characters that are, whatever stands beside them, and that
// combine with nothing before them are called inert; only what lies between two of them, with the
// first of the two, is given to utf8proc. So its memory (4 bytes per character) stays small too.
#include "data/tokenizer/nfc.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <utf8proc.h>

#include "base/error.h"
#include "data/utf8.h"

namespace data {
namespace {

struct CodeRange {
  char32_t first, last;
};
// Found by giving every character, alone and between marks, to utf8proc 2.8 and to tokenizers
// 0.23.3.
constexpr std::array<CodeRange, 39> kLaterMarks = {
    {{0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
     {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
     {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
     {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
     {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
     {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
     {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
     {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
     {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}}};

// Not all that are, but what common scripts consist of. Each range lacks combining marks, second
// halves of compositions, and characters that are written otherwise in the form (such as U+2126).
bool is_inert(char32_t code) {
  if (code < 0x300) return true;
  return (code >= 0x391 && code <= 0x482) ||    // Greek, Coptic, Cyrillic
         (code >= 0x621 && code <= 0x64A) ||    // Arabic letters
         (code >= 0xE01 && code <= 0xE30) ||    // Thai consonants
         (code >= 0x2010 && code <= 0x205E) ||  // punctuation
         (code >= 0x3000 && code <= 0x3029) || (code >= 0x3041 && code <= 0x3096) ||  // Hiragana
         (code >= 0x30A1 && code <= 0x30FA) ||                                        // Katakana
         (code >= 0x3400 && code <= 0x9FFF) ||  // Chinese characters
         (code >= 0xAC00 && code <= 0xD7A3) ||  // Hangul syllables
         is_later_mark(code);
}

// The first character at or behind `begin` that is inert (or is not).
size_t find_inert(std::string_view text, size_t begin, bool wanted) {
  while (begin < text.size()) {
    const Utf8Character character = character_at(text, begin);
    if (is_inert(character.code) == wanted) return begin;
    begin += character.bytes;
  }
  return text.size();
}

void append_normalized(std::string_view text, std::string& out) {
  uint8_t* result = nullptr;
  const auto bytes =
      utf8proc_map(reinterpret_cast<const uint8_t*>(text.data()), utf8proc_ssize_t(text.size()),
                   &result, utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (bytes == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  CHECK(bytes >= 0, "utf8proc: {}", utf8proc_errmsg(bytes));
  out.append(reinterpret_cast<const char*>(result), size_t(bytes));
}

}  // namespace

bool is_later_mark(char32_t code) {
  const auto range = std::ranges::lower_bound(kLaterMarks, code, {}, &CodeRange::last);
  return range != kLaterMarks.end() && code >= range->first;
}

bool is_surely_nfc(std::string_view text) {
  return find_inert(text, 0, false) == text.size();
}

std::string to_nfc(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  size_t done = 0;
  while (done < text.size()) {
    const size_t unsure = find_inert(text, done, false);
    const bool has_end = unsure == text.size();
    // The character before may be the first half of a composition.
    size_t first = has_end || unsure == done ? unsure : previous_character(text, unsure);
    if (is_later_mark(character_at(text, std::min(first, text.size() - 1)).code)) first = unsure;
    result += text.substr(done, first - done);
    if (has_end) break;
    const size_t end = find_inert(text, unsure, true);
    append_normalized(text.substr(first, end - first), result);
    done = end;
  }
  return result;
}

}  // namespace data
