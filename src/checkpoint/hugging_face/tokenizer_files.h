// The tokenizer's files of a folder of transformers.
#pragma once

#include <string>

#include "base/file.h"
#include "checkpoint/hugging_face.h"
#include "data/tokenizer_record.h"

namespace checkpoint {

// tokenizer_config.json, for such a text. `text_tokens`: what a model takes at most.
std::string write_tokenizer_config(const data::TokenizerRecord& record, const std::string& text,
                                   int64_t text_tokens);

// What is around texts, as config.json says; see HuggingFaceConfig.
struct ConfiguredEnds {
  int32_t begin_id = data::Tokenizer::kNoId;
  int32_t end_id = data::Tokenizer::kNoId;
  bool has_begin_id = false;
};
struct FoundTokenizer {
  data::TokenizerRecord record;  // Not whole: there is no tokenizer.json.
  std::string problem;           // Why it cannot be used here; empty: it can.
};
// The folder's tokenizer. The end is that of config.json; the begin is what the tokenizer itself
// puts before a text, unless config.json says that there is none.
FoundTokenizer read_tokenizer_files(base::Storage& storage, const std::string& folder,
                                    const ConfiguredEnds& ends);

}  // namespace checkpoint
