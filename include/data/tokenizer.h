// Text to token ids and back.
//
// A tokenizer.json gives the ids that the `tokenizers` package gives for it without special tokens
// put around the text. Two things follow that one might not expect:
//
//   - Text that is not UTF-8, which that package never sees, is read as Python's errors="replace"
//     does: each maximal part of a character that cannot be one becomes U+FFFD.
//   - The text of an added token inside a document ("<|endoftext|>") becomes that token. Data of
//     doubtful origin should be cleaned of it before.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/hash.h"

namespace data {

inline constexpr const char* kBytesTokenizer = "bytes";

class Tokenizer {
 public:
  static constexpr int32_t kNoId = -1;

  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;        // "bytes", or the name of its file.
  virtual std::string definition() const = 0;  // The text of its file; empty if it needs none.
  virtual int64_t vocabulary() const = 0;      // The largest id + 1.
  virtual int32_t begin_id() const = 0;        // Stands before each document; may be kNoId.
  virtual int32_t end_id() const = 0;          // Stands after each; only ever a target. May be
                                               // kNoId where TokenizerOptions::ids says so.
  // Adds the ids of `text` to `ids`. Thread safe.
  virtual void append_ids(std::string_view text, std::vector<int32_t>& ids) const = 0;
  // Bytes, which may begin or end inside a character. Special and unknown ids become nothing.
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;

  std::vector<int32_t> encode(std::string_view text) const;
};

// Texts of special tokens; empty: what the tokenizer itself says, by its post-processor or by a
// name that is commonly used ("<|begin_of_text|>", "<|endoftext|>" and the like).
struct TokenizerOptions {
  std::string begin_token;  // kNone: documents have no begin id.
  std::string end_token;
  // Ids that are known already, instead of both; each may be kNoId.
  struct Ids {
    int32_t begin = Tokenizer::kNoId;
    int32_t end = Tokenizer::kNoId;
  };
  std::optional<Ids> ids = {};
  static constexpr std::string_view kNone = "none";
};

// `name`: "bytes" (ids 0..255 are bytes, 256 begin, 257 end), or the path of a tokenizer.json with
// byte-level BPE. Throws bad_input for anything else, and for a tokenizer.json that needs something
// that is not supported here: it is named.
std::unique_ptr<Tokenizer> make_tokenizer(base::Storage& storage, const std::string& name,
                                          const TokenizerOptions& options = {});

}  // namespace data
