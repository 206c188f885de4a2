// Most text is in the form already. Characters that are, whatever stands beside them, and that
// combine with nothing before them are called inert; only what lies between two of them, with the
// first of the two, is given to utf8proc. So its memory (4 bytes per character) stays small too.
#include "data/tokenizer/nfc.h"

#include <cstdlib>
#include <memory>
#include <utf8proc.h>

#include "base/error.h"
#include "data/tokenizer/utf8.h"

namespace data {
namespace {

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
         (code >= 0xAC00 && code <= 0xD7A3);    // Hangul syllables
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
    const size_t first = has_end || unsure == done ? unsure : previous_character(text, unsure);
    result += text.substr(done, first - done);
    if (has_end) break;
    const size_t end = find_inert(text, unsure, true);
    append_normalized(text.substr(first, end - first), result);
    done = end;
  }
  return result;
}

}  // namespace data
