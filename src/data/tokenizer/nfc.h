// Unicode's normalization form C as the `tokenizers` package has it, by utf8proc.
//
// The package knows Unicode 9. Marks that came later are letters to it: they stay where they are
// and combine with nothing, and so they do here, whatever utf8proc knows of them (2.8: Unicode 15).
#pragma once

#include <string>
#include <string_view>

namespace data {

// True: `text` is in the form. False: it may be, or not.
bool is_surely_nfc(std::string_view text);
// A mark that came after Unicode 9.
bool is_later_mark(char32_t code);
// REQUIRES: valid UTF-8.
std::string to_nfc(std::string_view text);

}  // namespace data
