// A tokenizer.json at work: added tokens are cut out, what lies between them is normalised and
// split into words, and each word is merged. Threads take their memory from a common heap of
// scratches.
#include <filesystem>
#include <mutex>

#include "data/tokenizer/nfc.h"
#include "data/tokenizer/tokenizer_json.h"
#include "data/tokenizer/tokenizers.h"
#include "data/utf8.h"

namespace data {
namespace {

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool is_normalized) {
  std::vector<AddedToken> result;
  // Special tokens come before others of the same text.
  for (const bool is_special : {true, false}) {
    for (const AddedToken& token : tokens) {
      if (token.is_normalized == is_normalized && token.is_special == is_special)
        result.push_back(token);
    }
  }
  return result;
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(std::string name, std::string text, TokenizerDefinition definition)
      : name_(std::move(name)),
        text_(std::move(text)),
        begin_id_(definition.begin_id),
        end_id_(definition.end_id),
        is_nfc_(definition.is_nfc),
        raw_tokens_(select(definition.added_tokens, false)),
        normalized_tokens_(select(definition.added_tokens, true)),
        pre_split_(std::move(definition.splits)),
        bpe_(std::move(definition.bpe)),
        id_bytes_(std::move(definition.id_bytes)),
        is_special_(id_bytes_.size()) {
    for (const AddedToken& token : definition.added_tokens)
      if (token.is_special) is_special_[size_t(token.id)] = true;
  }

  std::string name() const override { return name_; }
  std::string definition() const override { return text_; }
  int64_t vocabulary() const override { return int64_t(id_bytes_.size()); }
  int32_t begin_id() const override { return begin_id_; }
  int32_t end_id() const override { return end_id_; }

  void append_ids(std::string_view text, std::vector<int32_t>& ids) const override {
    std::unique_ptr<Scratch> scratch = take_scratch();
    if (valid_utf8_bytes(text) == text.size()) {
      append_valid(text, *scratch, ids);
    } else {
      append_valid(replace_invalid_utf8(text), *scratch, ids);
    }
    give_back(std::move(scratch));
  }

  std::string decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id >= 0 && size_t(id) < id_bytes_.size() && !is_special_[size_t(id)])
        text += id_bytes_[size_t(id)];
    }
    return text;
  }

 private:
  struct Scratch {
    PatternScratch pattern;
    BpeScratch bpe;
  };

  std::unique_ptr<Scratch> take_scratch() const {
    {
      const std::lock_guard lock(mutex_);
      if (!scratches_.empty()) {
        auto scratch = std::move(scratches_.back());
        scratches_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<Scratch>();
  }
  void give_back(std::unique_ptr<Scratch> scratch) const {
    const std::lock_guard lock(mutex_);
    scratches_.push_back(std::move(scratch));
  }

  void append_valid(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const {
    const auto on_token = [&](int32_t id) { ids.push_back(id); };
    const auto on_normalized = [&](std::string_view part) {
      pre_split_.split(part, scratch.pattern,
                       [&](std::string_view word) { bpe_.append_word(word, scratch.bpe, ids); });
    };
    raw_tokens_.split(
        text, scratch.pattern,
        [&](std::string_view part) {
          if (!is_nfc_ || is_surely_nfc(part))
            return normalized_tokens_.split(part, scratch.pattern, on_normalized, on_token);
          normalized_tokens_.split(to_nfc(part), scratch.pattern, on_normalized, on_token);
        },
        on_token);
  }

  const std::string name_, text_;
  const int32_t begin_id_, end_id_;
  const bool is_nfc_;
  const AddedTokens raw_tokens_, normalized_tokens_;
  const PreSplit pre_split_;
  const Bpe bpe_;
  const std::vector<std::string> id_bytes_;
  std::vector<bool> is_special_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratches_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(const std::string& path, std::string text,
                                              const TokenizerOptions& options,
                                              const std::string& name) {
  TokenizerDefinition definition = read_tokenizer_json(path, text, options);
  return std::make_unique<BpeTokenizer>(
      name.empty() ? std::filesystem::path(path).filename().string() : name, std::move(text),
      std::move(definition));
}

}  // namespace data
