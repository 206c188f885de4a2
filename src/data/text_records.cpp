#include "data/text_records.h"

#include <algorithm>

namespace data {
namespace {

constexpr size_t kNoEnd = std::string_view::npos;

// How many bytes of a text that is longer than `limit` become its next document: up to a line's end
// in the second half, else up to a character's.
size_t cut_length(std::string_view text, size_t limit) {
  const size_t line_end = text.substr(0, limit).rfind('\n');
  if (line_end != std::string_view::npos && line_end >= limit / 2) return line_end + 1;
  constexpr size_t kCharacterBytesMax = 4;
  for (size_t end = limit; end > 1 && end + kCharacterBytesMax > limit; --end) {
    const bool is_inside_character = (uint8_t(text[end]) & 0xC0) == 0x80;
    if (!is_inside_character) return end;
  }
  return limit;
}

}  // namespace

// Where the text at the front of the window ends; kNoEnd: it is too long.
size_t TextRecords::find_end() {
  const size_t room = text_bytes_max_ + std::max<size_t>(separator_.size(), 1);
  for (size_t searched = 0;;) {
    const std::string_view window = source_.window().substr(0, room);
    if (!separator_.empty()) {
      const size_t found = window.find(separator_, searched);
      if (found != std::string_view::npos) return found;
      searched = window.size() - std::min(window.size(), separator_.size() - 1);
    }
    if (window.size() == room || source_.is_whole())
      return window.size() > text_bytes_max_ ? kNoEnd : window.size();
    source_.extend();
  }
}

std::optional<TextRecord> TextRecords::next() {
  while (true) {
    source_.extend_to(1);
    if (source_.window().empty()) return std::nullopt;
    const size_t end = find_end();
    const bool is_cut = end == kNoEnd;
    const std::string_view text =
        source_.window().substr(0, is_cut ? cut_length(source_.window(), text_bytes_max_) : end);
    const TextRecord record = {.text = text, .is_cut = is_cut && !is_inside_};
    const bool is_blank = !separator_.empty() && !is_inside_ && !is_cut &&
                          text.find_first_not_of(" \t\r\n") == std::string_view::npos;
    source_.skip(text.size());
    if (!is_cut) source_.skip(std::min(separator_.size(), source_.window().size()));
    is_inside_ = is_cut;
    if (!is_blank) return record;
  }
}

}  // namespace data
