#include "data/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "data/byte_level.h"
#include "data/tokenizer/json_reading.h"
#include "data/tokenizer/nfc.h"

namespace data {
namespace {

using base::JsonValue;

// Far above any vocabulary, so that a damaged number cannot take all memory.
constexpr int64_t kIdsMax = int64_t{1} << 22;
constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
// In the order in which they are looked for.
constexpr std::array<std::string_view, 5> kBeginNames = {
    "<|begin_of_text|>", "<|startoftext|>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<bos>",
    "<s>"};
constexpr std::array<std::string_view, 5> kEndNames = {
    "<|end_of_text|>", "<|endoftext|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<eos>", "</s>"};

class Reader {
 public:
  Reader(const std::string& path, std::string_view text, const TokenizerOptions& options)
      : json_(path, text), options_(options) {}

  TokenizerDefinition read() {
    const JsonValue model = json_.get(json_.document(), "model");
    check_model(model);
    read_vocabulary(json_.get(model, "vocab"));
    read_merges(json_.get(model, "merges"));
    result_.bpe.whole_words_first = json_.flag(model, "ignore_merges");
    if (const auto normalizer = json_.find(json_.document(), "normalizer"))
      read_normalizer(*normalizer);
    read_pre_tokenizer();
    if (const auto added = json_.find(json_.document(), "added_tokens")) read_added_tokens(*added);
    choose_ends();
    return std::move(result_);
  }

 private:
  void check_model(const JsonValue& model) const {
    // Old files do not name their type.
    const auto type = json_.find(model, "type");
    if (type && json_.text(*type) != "BPE")
      throw json_.unsupported(fmt::format("a model of type {}", json_.text(*type)));
    if (json_.flag(model, "byte_fallback"))
      throw json_.unsupported("BPE on characters with byte_fallback (SentencePiece)");
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const auto value = json_.find(model, affix);
      if (value && !json_.text(*value).empty()) throw json_.unsupported(affix);
    }
    if (json_.find(model, "dropout")) throw json_.unsupported("dropout");
  }

  void put(int64_t id, const std::string& token, std::string bytes) {
    if (id < 0 || id >= kIdsMax) throw json_.broken(fmt::format("\"{}\" has the id {}", token, id));
    auto& all = result_.id_bytes;
    if (int64_t(all.size()) <= id) all.resize(size_t(id) + 1);
    if (!all[size_t(id)].empty())
      throw json_.broken(fmt::format("two tokens have the id {}, \"{}\" is one", id, token));
    all[size_t(id)] = std::move(bytes);
  }

  void read_vocabulary(const JsonValue& vocabulary) {
    auto& bpe = result_.bpe;
    for (const std::string& token : vocabulary.keys()) {
      const int64_t id = json_.integer(json_.get(vocabulary, token));
      auto bytes = byte_level_bytes(token);
      put(id, token, bytes ? *bytes : token);
      if (bpe.token_bytes.size() < result_.id_bytes.size())
        bpe.token_bytes.resize(result_.id_bytes.size());
      if (bytes) bpe.token_bytes[size_t(id)] = std::move(*bytes);
      ids_.emplace(token, int32_t(id));
    }
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = ids_.find(byte_level_letter(uint8_t(byte)));
      const bool is_in_text = byte < 0xC0 || (byte > 0xC1 && byte < 0xF5);
      if (found == ids_.end() && is_in_text)
        throw json_.unsupported(fmt::format("a vocabulary without the byte {:#04x}", byte));
      bpe.byte_ids[size_t(byte)] = found == ids_.end() ? -1 : found->second;
    }
  }

  void read_merges(const JsonValue& merges) {
    const auto id_of = [&](const std::string& token) {
      const auto found = ids_.find(token);
      if (found == ids_.end())
        throw json_.broken(fmt::format("a merge speaks of \"{}\", which is no token", token));
      return found->second;
    };
    for (int64_t i = 0; i < merges.count(); ++i) {
      const JsonValue merge = json_.at(merges, i);
      std::string left, right;
      if (merge.is_array()) {
        if (merge.count() != 2) throw json_.broken(merge.unexpected("two tokens").reason);
        left = json_.text(json_.at(merge, 0));
        right = json_.text(json_.at(merge, 1));
      } else {
        left = json_.text(merge);
        const size_t space = left.find(' ');
        if (space == std::string::npos)
          throw json_.broken(merge.unexpected("two tokens with a space between them").reason);
        right = left.substr(space + 1);
        left.resize(space);
      }
      result_.bpe.merges.push_back(
          {.left = id_of(left), .right = id_of(right), .result = id_of(left + right)});
    }
  }

  void read_normalizer(const JsonValue& normalizer) {
    const std::string type = json_.text(normalizer, "type");
    if (type == "NFC") {
      result_.is_nfc = true;
    } else if (type == "Sequence") {
      const JsonValue parts = json_.get(normalizer, "normalizers");
      for (int64_t i = 0; i < parts.count(); ++i) read_normalizer(json_.at(parts, i));
    } else {
      throw json_.unsupported(fmt::format("the normalizer {}", type));
    }
  }

  void read_pre_tokenizer() {
    const auto all = json_.find(json_.document(), "pre_tokenizer");
    if (all) add_stage(*all);
    if (!is_byte_level_) throw json_.unsupported("a pre-tokenizer without ByteLevel");
  }

  void add_stage(const JsonValue& stage) {
    const std::string type = json_.text(stage, "type");
    if (is_byte_level_)
      throw json_.unsupported(fmt::format("the pre-tokenizer {} behind ByteLevel", type));
    if (type == "Sequence") {
      const JsonValue parts = json_.get(stage, "pretokenizers");
      for (int64_t i = 0; i < parts.count(); ++i) add_stage(json_.at(parts, i));
    } else if (type == "ByteLevel") {
      if (json_.flag(stage, "add_prefix_space", true))
        result_.splits.push_back({.kind = SplitStage::kAddSpace});
      if (json_.flag(stage, "use_regex", true)) add_split(Pattern::compile(kGpt2Pattern));
      is_byte_level_ = true;
    } else if (type == "Split") {
      read_split(stage);
    } else if (type == "Digits") {
      add_split(Pattern::compile(json_.flag(stage, "individual_digits") ? "\\p{N}" : "\\p{N}+"));
    } else {
      throw json_.unsupported(fmt::format("the pre-tokenizer {}", type));
    }
  }

  void read_split(const JsonValue& split) {
    const std::string behavior = json_.text(split, "behavior");
    const bool is_inverted = json_.flag(split, "invert");
    SplitStage::Kind kind = SplitStage::kIsolate;
    if (behavior == "Removed") {
      kind = is_inverted ? SplitStage::kKeepMatches : SplitStage::kKeepBetween;
    } else if (behavior != "Isolated") {
      throw json_.unsupported(fmt::format("a Split with the behavior {}", behavior));
    }
    const JsonValue pattern = json_.get(split, "pattern");
    if (const auto literal = json_.find(pattern, "String")) {
      add_split(Pattern::compile_literal(json_.text(*literal)), kind);
    } else {
      add_split(Pattern::compile(json_.text(pattern, "Regex")), kind);
    }
  }

  void add_split(const base::Result<std::shared_ptr<const Pattern>>& pattern,
                 SplitStage::Kind kind = SplitStage::kIsolate) {
    if (!pattern) throw json_.unsupported(pattern.reason());
    result_.splits.push_back({.kind = kind, .pattern = *pattern});
  }

  void read_added_tokens(const JsonValue& added) {
    for (int64_t i = 0; i < added.count(); ++i) {
      const JsonValue one = json_.at(added, i);
      AddedToken token = {.content = json_.text(one, "content"),
                          .is_single_word = json_.flag(one, "single_word"),
                          .strips_left = json_.flag(one, "lstrip"),
                          .strips_right = json_.flag(one, "rstrip"),
                          .is_normalized = json_.flag(one, "normalized"),
                          .is_special = json_.flag(one, "special")};
      if (token.content.empty()) continue;
      const int64_t id = json_.integer(json_.get(one, "id"));
      const auto [known, is_new] = ids_.emplace(token.content, int32_t(id));
      if (known->second != id) {
        throw json_.broken(
            fmt::format("\"{}\" has the ids {} and {}", token.content, known->second, id));
      }
      if (token.is_normalized && result_.is_nfc) token.content = to_nfc(token.content);
      if (is_new) put(id, token.content, token.content);
      token.id = int32_t(id);
      result_.added_tokens.push_back(std::move(token));
    }
  }

  // By ids that are known, by an option, by what the post-processor puts around a text, or by a
  // well-known name.
  void choose_ends() {
    if (options_.ids) {
      result_.begin_id = checked_id(options_.ids->begin);
      result_.end_id = checked_id(options_.ids->end);
      return;
    }
    if (const auto processor = json_.find(json_.document(), "post_processor"))
      read_post_processor(*processor);
    const auto choose = [&](int32_t& id, const std::string& option, auto& names) {
      if (!option.empty()) {
        id = option == TokenizerOptions::kNone ? Tokenizer::kNoId : id_of_option(option);
        return;
      }
      for (size_t i = 0; i < names.size() && id == Tokenizer::kNoId; ++i) {
        const AddedToken* token = find_special(names[i]);
        if (token) id = token->id;
      }
    };
    choose(result_.begin_id, options_.begin_token, kBeginNames);
    choose(result_.end_id, options_.end_token, kEndNames);
    if (result_.end_id != Tokenizer::kNoId) return;
    throw base::bad_input("the tokenizer has no token that is known to end a text",
                          "name one with --end");
  }

  int32_t checked_id(int32_t id) const {
    if (id == Tokenizer::kNoId || (id >= 0 && size_t(id) < result_.id_bytes.size())) return id;
    throw json_.broken(fmt::format("it has no token {}, with which documents begin or end", id));
  }

  int32_t id_of_option(const std::string& content) const {
    const auto found = ids_.find(content);
    if (found != ids_.end()) return found->second;
    throw base::bad_input(fmt::format("the tokenizer has no token \"{}\"", content));
  }

  const AddedToken* find_special(std::string_view content) const {
    const auto& all = result_.added_tokens;
    const auto found = std::ranges::find_if(
        all, [&](const AddedToken& token) { return token.is_special && token.content == content; });
    return found == all.end() ? nullptr : &*found;
  }

  void read_post_processor(const JsonValue& processor) {
    const std::string type = json_.text(processor, "type");
    if (type == "Sequence") {
      const JsonValue parts = json_.get(processor, "processors");
      for (int64_t i = 0; i < parts.count(); ++i) read_post_processor(json_.at(parts, i));
    }
    if (type != "TemplateProcessing") return;
    const JsonValue pieces = json_.get(processor, "single");
    bool is_behind_text = false;
    for (int64_t i = 0; i < pieces.count(); ++i) {
      const JsonValue piece = json_.at(pieces, i);
      is_behind_text = is_behind_text || piece.has("Sequence");
      const auto special = json_.find(piece, "SpecialToken");
      if (!special) continue;
      (is_behind_text ? result_.end_id : result_.begin_id) =
          id_of_option(json_.text(*special, "id"));
    }
  }

  const JsonReading json_;
  const TokenizerOptions& options_;
  TokenizerDefinition result_;
  std::unordered_map<std::string, int32_t> ids_;  // Of all tokens as the file writes them.
  bool is_byte_level_ = false;
};

}  // namespace

TokenizerDefinition read_tokenizer_json(const std::string& path, std::string_view text,
                                        const TokenizerOptions& options) {
  return Reader(path, text, options).read();
}

}  // namespace data
