// Unicode's normalization form C, by utf8proc. What a later version of Unicode has added to what
// utf8proc knows stays as it is; for all older characters the form is the same in every version.
#pragma once

#include <string>
#include <string_view>

namespace data {

// True: `text` is in the form. False: it may be, or not.
bool is_surely_nfc(std::string_view text);
// REQUIRES: valid UTF-8.
std::string to_nfc(std::string_view text);

}  // namespace data
