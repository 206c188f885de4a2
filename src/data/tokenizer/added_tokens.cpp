#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include "data/utf8.h"

namespace data {
namespace {

std::shared_ptr<const Pattern> compile(std::string_view pattern) {
  auto result = Pattern::compile(pattern);
  CHECK(result.ok(), "{}", result.ok() ? "" : result.reason());
  return *result;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)),
      nodes_(1),
      // What a word consists of for Rust's regular expressions.
      word_(compile("\\A[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]")),
      space_(compile("\\A\\s")) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    CHECK(!tokens_[i].content.empty(), "an added token without text");
    size_t node = 0;
    for (const char byte : tokens_[i].content) {
      const auto [next, is_new] = nodes_[node].next.try_emplace(byte, int32_t(nodes_.size()));
      node = size_t(next->second);
      if (is_new) nodes_.emplace_back();
    }
    if (nodes_[node].token < 0) nodes_[node].token = int32_t(i);
    is_first_byte_[uint8_t(tokens_[i].content.front())] = true;
  }
}

AddedTokens::Found AddedTokens::find(std::string_view text, size_t begin) const {
  for (; begin < text.size(); ++begin) {
    if (!is_first_byte_[uint8_t(text[begin])]) continue;
    Found found;
    size_t node = 0;
    for (size_t end = begin; end < text.size(); ++end) {
      const auto next = nodes_[node].next.find(text[end]);
      if (next == nodes_[node].next.end()) break;
      node = size_t(next->second);
      if (nodes_[node].token >= 0) found = {begin, end + 1, &tokens_[size_t(nodes_[node].token)]};
    }
    if (found.token) return found;
  }
  return {};
}

bool AddedTokens::is_word_at(std::string_view text, size_t position,
                             PatternScratch& scratch) const {
  Pattern::Match match;
  return word_->find(text.substr(position), 0, scratch, match);
}

bool AddedTokens::stands_alone(std::string_view text, const Found& found,
                               PatternScratch& scratch) const {
  if (found.begin > 0 && is_word_at(text, previous_character(text, found.begin), scratch))
    return false;
  return found.end == text.size() || !is_word_at(text, found.end, scratch);
}

size_t AddedTokens::skip_space_left(std::string_view text, size_t end,
                                    PatternScratch& scratch) const {
  Pattern::Match match;
  while (end > 0) {
    const size_t begin = previous_character(text, end);
    if (!space_->find(text.substr(begin), 0, scratch, match)) break;
    end = begin;
  }
  return end;
}

size_t AddedTokens::skip_space_right(std::string_view text, size_t begin,
                                     PatternScratch& scratch) const {
  Pattern::Match match;
  while (begin < text.size() && space_->find(text.substr(begin), 0, scratch, match))
    begin += match.end;
  return begin;
}

void AddedTokens::split(std::string_view text, PatternScratch& scratch, const OnText& on_text,
                        const OnToken& on_token) const {
  size_t done = 0;
  for (Found found = find(text, 0); found.token; found = find(text, found.end)) {
    const AddedToken& token = *found.token;
    if (token.is_single_word && !stands_alone(text, found, scratch)) continue;
    size_t begin = found.begin, end = found.end;
    if (token.strips_left) begin = std::max(skip_space_left(text, begin, scratch), done);
    if (token.strips_right) end = skip_space_right(text, end, scratch);
    if (done < begin) on_text(text.substr(done, begin - done));
    on_token(token.id);
    done = end;
  }
  if (done < text.size()) on_text(text.substr(done));
}

}  // namespace data
