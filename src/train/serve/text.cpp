#include "train/serve/text.h"

#include <fmt/format.h>

#include "checkpoint/hugging_face.h"
#include "data/utf8.h"

namespace train {
namespace {

// The begin of a character that more bytes may make whole: how many bytes at the end of `text`.
size_t unfinished_bytes(std::string_view text) {
  constexpr size_t kLongest = 4;
  for (size_t back = 1; back < kLongest && back <= text.size(); ++back) {
    const auto byte = uint8_t(text[text.size() - back]);
    if (byte >= 0x80 && byte < 0xC0) continue;
    if (byte < 0xC2 || byte > 0xF4) return 0;
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    const bool could_be_whole = data::character_at(text, text.size() - back).bytes == back;
    return back < length && could_be_whole ? back : 0;
  }
  return 0;
}

}  // namespace

int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (uint8_t(c) & 0xC0) != 0x80;
  return count;
}

ServedTokenizer::ServedTokenizer(const data::TokenizerRecord& record) {
  data::TokenizerRecord named = record;
  named.definition = checkpoint::tokenizer_json(record);
  if (named.name == data::kBytesTokenizer) named.name = "tokenizer.json";
  tokenizer_ = data::make_tokenizer(named, "tokenizer.json of the checkpoint");
  begin_text_ = checkpoint::added_token_text(named.definition, tokenizer_->begin_id());
  end_text_ = checkpoint::added_token_text(named.definition, tokenizer_->end_id());
}

std::vector<int32_t> ServedTokenizer::encode(std::string_view text, bool with_begin) const {
  std::vector<int32_t> ids;
  if (with_begin && has_begin()) ids.push_back(tokenizer_->begin_id());
  tokenizer_->append_ids(text, ids);
  return ids;
}

std::string ServedTokenizer::name_of(int32_t id) const {
  if (id == tokenizer_->begin_id()) return begin_text_;
  if (id == tokenizer_->end_id()) return end_text_;
  const std::string bytes = bytes_of(id);
  if (data::valid_utf8_bytes(bytes) == bytes.size()) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", uint8_t(byte));
  return name;
}

std::string CharacterStream::give(std::string_view bytes) {
  std::string text = data::replace_invalid_utf8(bytes);
  characters_ += count_characters(text);
  return text;
}

std::string CharacterStream::push(std::string_view bytes) {
  rest_ += bytes;
  const size_t whole = rest_.size() - unfinished_bytes(rest_);
  std::string text = give(std::string_view(rest_).substr(0, whole));
  rest_.erase(0, whole);
  return text;
}

std::string CharacterStream::flush() {
  std::string text = give(rest_);
  rest_.clear();
  return text;
}

}  // namespace train
