// What is kept of a tokenizer, beside data and in checkpoints, so that it can be made again.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"

namespace data {

struct TokenizerRecord {
  std::string name;        // "bytes", or the name of its file; empty: not known.
  std::string definition;  // The text of that file; empty: it needs none, or it is not there.
  int32_t begin_id = Tokenizer::kNoId;  // Around each document.
  int32_t end_id = Tokenizer::kNoId;

  // A tokenizer can be made of it.
  bool is_whole() const { return name == kBytesTokenizer || !definition.empty(); }
  bool operator==(const TokenizerRecord&) const = default;
};

TokenizerRecord bytes_record();
TokenizerRecord record_of(const Tokenizer& tokenizer);

// What a dataset was made with: PREFIX.json says its name and the ids around documents,
// PREFIX.tokenizer.json is its definition. Without the former the tokenizer's own ends count.
// Throws bad_input where the definition is another one than that of which PREFIX.json has the hash.
TokenizerRecord tokenizer_of(base::Storage& storage, const TokenDataset& dataset);

// REQUIRES: record.is_whole(). Throws bad_input for what make_tokenizer() of a file does; `where`
// says in messages where the record comes from.
std::unique_ptr<Tokenizer> make_tokenizer(const TokenizerRecord& record, const std::string& where);

}  // namespace data
