// The kinds of tokenizers.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace data {

std::unique_ptr<Tokenizer> make_byte_tokenizer();
// `text` is a tokenizer.json, `path` its file, whose name is the tokenizer's unless `name` is
// another one. Throws bad_input.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(const std::string& path, std::string text,
                                              const TokenizerOptions& options,
                                              const std::string& name = {});

}  // namespace data
