// Tokens that are found in the text before anything else is done to it: special tokens, and words
// that were added to a finished vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/pattern.h"

namespace data {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool is_single_word = false;  // Not where a letter, mark, digit or connector touches it.
  bool strips_left = false;     // White space beside it is lost.
  bool strips_right = false;
  bool is_normalized = false;  // Looked for in the normalised text, and normalised itself.
  bool is_special = false;
};

// From left to right; of several at one place the longest.
class AddedTokens {
 public:
  using OnText = std::function<void(std::string_view text)>;
  using OnToken = std::function<void(int32_t id)>;

  // `tokens` have contents that are not empty; of equal ones the first counts.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  // Calls for tokens and for the text between them, in their order. REQUIRES: valid UTF-8.
  void split(std::string_view text, PatternScratch& scratch, const OnText& on_text,
             const OnToken& on_token) const;

 private:
  struct Found {
    size_t begin = 0, end = 0;
    const AddedToken* token = nullptr;  // Null: there is none.
  };
  Found find(std::string_view text, size_t begin) const;
  bool is_word_at(std::string_view text, size_t position, PatternScratch& scratch) const;
  bool stands_alone(std::string_view text, const Found& found, PatternScratch& scratch) const;
  size_t skip_space_left(std::string_view text, size_t end, PatternScratch& scratch) const;
  size_t skip_space_right(std::string_view text, size_t begin, PatternScratch& scratch) const;

  // A trie: node 0 is the root, and (node, byte) leads to the next node.
  struct Node {
    int32_t token = -1;  // That ends here, as an index of tokens_.
    std::unordered_map<char, int32_t> next;
  };
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  bool is_first_byte_[256] = {};
  std::shared_ptr<const Pattern> word_, space_;
};

}  // namespace data
