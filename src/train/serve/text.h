// Tokens as text for clients: the tokenizer with the names of its special tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "data/tokenizer_record.h"

namespace train {

class ServedTokenizer {
 public:
  // Special tokens are named as in the tokenizer.json that `atoll convert --to hf` writes; "bytes"
  // becomes that one, so that clients can ask for its ends by their names.
  explicit ServedTokenizer(const data::TokenizerRecord& record);

  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t vocabulary() const { return tokenizer_->vocabulary(); }
  bool has_begin() const { return tokenizer_->begin_id() != data::Tokenizer::kNoId; }
  const std::string& begin_text() const { return begin_text_; }  // Empty: there is none.
  const std::string& end_text() const { return end_text_; }

  std::vector<int32_t> encode(std::string_view text, bool with_begin) const;
  // Bytes; special tokens are nothing.
  std::string bytes_of(int32_t id) const { return tokenizer_->decode({id}); }
  // What names the token in JSON: its text; of special ones their name; "bytes:\xe2\x82" where it
  // is not whole characters.
  std::string name_of(int32_t id) const;

 private:
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::string begin_text_, end_text_;
};

int64_t count_characters(std::string_view text);  // REQUIRES: valid UTF-8.

// Whole characters of text whose bytes come in parts.
class CharacterStream {
 public:
  // The bytes that can be given out now: what is left is the begin of a character. Bytes that can
  // be no character become U+FFFD.
  std::string push(std::string_view bytes);
  // What is left, at the end.
  std::string flush();
  int64_t characters() const { return characters_; }  // Given out so far.

 private:
  std::string give(std::string_view bytes);

  std::string rest_;
  int64_t characters_ = 0;
};

}  // namespace train
