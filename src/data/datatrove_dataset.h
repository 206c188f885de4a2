// Token data as datatrove writes them: one file of tokens, and one of where documents end.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"
#include "data/token_dataset.h"

namespace data {

// `path` is that of the .ds file; `prefix` is what the dataset shall be called.
std::unique_ptr<TokenDataset> open_datatrove(base::Storage& storage, const std::string& prefix,
                                             const std::string& path);

}  // namespace data
