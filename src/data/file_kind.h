// What a file holds, as its name and its first bytes tell.
#pragma once

#include <string>
#include <string_view>

namespace data {

struct FileKind {
  enum Form { kText, kJsonLines, kJsonValues, kNothing };
  Form form = kNothing;
  std::string reason;  // Why nothing of it can be used.
};

FileKind kind_of(const std::string& path, std::string_view content);

}  // namespace data
