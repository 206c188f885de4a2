// Reads a tokenizer.json (the file of Hugging Face's `tokenizers`) and refuses what is not
// byte-level BPE, by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/pre_split.h"

namespace data {

struct TokenizerDefinition {
  BpeOptions bpe;
  // What each id is written as, whether merging reaches it or not: bytes.
  std::vector<std::string> id_bytes;
  std::vector<AddedToken> added_tokens;
  std::vector<SplitStage> splits;
  bool is_nfc = false;  // The normaliser.
  int32_t begin_id = Tokenizer::kNoId;
  int32_t end_id = Tokenizer::kNoId;
};

// `path` is for messages. Throws bad_input.
TokenizerDefinition read_tokenizer_json(const std::string& path, std::string_view text,
                                        const TokenizerOptions& options);

}  // namespace data
