// Which files a list of inputs means.
#pragma once

#include <string>
#include <vector>

#include "data/prepare.h"

namespace data {

struct FoundFiles {
  std::vector<std::string> paths;
  std::vector<LeftOut> left_out;
};

// Files stand for themselves, folders for all regular files under them in sorted order. A link to a
// file is followed; a link to a folder inside a folder is not, so that no loop of links can arise.
// Files named in `excluded` are left out of folders without a word. Throws bad_input for an input
// that does not exist or cannot be read.
FoundFiles find_files(const std::vector<std::string>& inputs,
                      const std::vector<std::string>& excluded);

}  // namespace data
