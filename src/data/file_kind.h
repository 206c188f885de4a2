// What a file holds, as its name and its first bytes tell.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace data {

// Of a file's beginning kind_of() looks at so many bytes: far enough for any format's header.
inline constexpr size_t kKindBytes = size_t{1} << 20;

struct FileKind {
  enum Form {
    kText,
    kJsonLines,
    kJsonValues,
    kNothing,  // Nothing of it can be used, and nobody expects that.
    kRefused,  // Data that somebody wants, but not as they are.
  };
  Form form = kNothing;
  std::string reason;  // Of the last two.
  std::string hint;    // What to do about it.
};

// `content` is the beginning of the file, unpacked; .gz and .zst are no part of its name.
FileKind kind_of(const std::string& path, std::string_view content);

}  // namespace data
