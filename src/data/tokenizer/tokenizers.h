// The kinds of tokenizers.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace data {

std::unique_ptr<Tokenizer> make_byte_tokenizer();
// `text` is a tokenizer.json, `path` its file. Throws bad_input.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(const std::string& path, std::string text,
                                              const TokenizerOptions& options);

}  // namespace data
