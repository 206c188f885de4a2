#include "checkpoint/hugging_face/tokenizer_files.h"

#include <fmt/format.h>

#include "base/json.h"
#include "checkpoint/manifest.h"
#include "data/byte_level.h"

namespace checkpoint {
namespace {

constexpr const char* kTokenizerConfigName = "tokenizer_config.json";
// Of bytes: as Llama 3 has them, which everything knows.
constexpr const char* kBytesBegin = "<|begin_of_text|>";
constexpr const char* kBytesEnd = "<|end_of_text|>";

void write_special(base::JsonWriter& out, const char* content, int32_t id) {
  out.begin_object().field("id", id).field("content", content);
  for (const char* key : {"single_word", "lstrip", "rstrip", "normalized"}) out.field(key, false);
  out.field("special", true).end_object();
}

void write_byte_level(base::JsonWriter& out, const char* key) {
  out.key(key)
      .begin_object()
      .field("type", "ByteLevel")
      .field("add_prefix_space", false)
      .field("trim_offsets", true)
      .field("use_regex", false)
      .end_object();
}

// Puts the begin token before every text, as training had it.
void write_template(base::JsonWriter& out, int32_t begin_id) {
  const auto begin = [&] {
    out.begin_object().key("SpecialToken").begin_object();
    out.field("id", kBytesBegin).field("type_id", 0).end_object().end_object();
  };
  const auto sequence = [&](const char* name, int type) {
    out.begin_object().key("Sequence").begin_object();
    out.field("id", name).field("type_id", type).end_object().end_object();
  };
  out.key("post_processor").begin_object().field("type", "TemplateProcessing");
  out.key("single").begin_array();
  begin();
  sequence("A", 0);
  out.end_array().key("pair").begin_array();
  begin();
  sequence("A", 0);
  begin();
  sequence("B", 1);
  out.end_array().key("special_tokens").begin_object().key(kBytesBegin).begin_object();
  out.field("id", kBytesBegin).key("ids").begin_array().value(begin_id).end_array();
  out.key("tokens").begin_array().value(kBytesBegin).end_array();
  out.end_object().end_object().end_object();
}

std::string bytes_as_bpe(const data::TokenizerRecord& record) {
  base::JsonWriter out(1);
  out.begin_object().field("version", "1.0");
  out.key("truncation").null().key("padding").null();
  out.key("added_tokens").begin_array();
  write_special(out, kBytesBegin, record.begin_id);
  write_special(out, kBytesEnd, record.end_id);
  out.end_array().key("normalizer").null();
  write_byte_level(out, "pre_tokenizer");
  write_template(out, record.begin_id);
  write_byte_level(out, "decoder");
  out.key("model").begin_object().field("type", "BPE");
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"})
    out.key(key).null();
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) out.field(key, false);
  out.key("vocab").begin_object();
  for (int byte = 0; byte < 256; ++byte) out.field(data::byte_level_letter(uint8_t(byte)), byte);
  out.end_object().key("merges").begin_array().end_array();
  out.end_object().end_object();
  return out.text() + "\n";
}

// The text of an added token; empty if there is none with the id.
std::string added_token(const base::JsonValue& tokenizer, int32_t id) {
  const auto all = tokenizer.get("added_tokens");
  for (int64_t i = 0; all && i < all->count(); ++i) {
    const auto token = all->at(i);
    const auto found = token ? token->get("id") : token;
    const auto number = found ? found->as_integer() : base::Result<int64_t>(base::Failure{""});
    if (!number || *number != id) continue;
    const auto content = token->get("content");
    const auto text = content ? content->as_string() : base::Result<std::string>(base::Failure{""});
    if (text) return *text;
  }
  return {};
}

bool puts_begin(base::Storage& storage, const std::string& folder) {
  const std::string path = folder + "/" + kTokenizerConfigName;
  if (!storage.exists(path)) return false;
  const auto document = base::JsonValue::parse(storage.read_text(path));
  if (!document) return false;
  const auto value = document->get("add_bos_token");
  const auto flag = value ? value->as_boolean() : base::Result<bool>(base::Failure{""});
  return flag && *flag;
}

}  // namespace

std::string tokenizer_json(const data::TokenizerRecord& record) {
  CHECK(record.is_whole());
  return record.definition.empty() ? bytes_as_bpe(record) : record.definition;
}

std::string added_token_text(const std::string& tokenizer_json, int32_t id) {
  const auto document = base::JsonValue::parse(tokenizer_json);
  return document && id != data::Tokenizer::kNoId ? added_token(*document, id) : "";
}

std::string write_tokenizer_config(const data::TokenizerRecord& record, const std::string& text,
                                   int64_t text_tokens) {
  const auto document = base::JsonValue::parse(text);
  base::JsonWriter out(2);
  out.begin_object().field("add_bos_token", record.begin_id != data::Tokenizer::kNoId);
  const auto special = [&](const char* key, int32_t id) {
    const std::string content =
        document && id != data::Tokenizer::kNoId ? added_token(*document, id) : "";
    if (!content.empty()) out.field(key, content);
  };
  special("bos_token", record.begin_id);
  out.field("clean_up_tokenization_spaces", false);
  special("eos_token", record.end_id);
  out.field("model_max_length", text_tokens)
      .field("tokenizer_class", "PreTrainedTokenizerFast")
      .end_object();
  return out.text() + "\n";
}

FoundTokenizer read_tokenizer_files(base::Storage& storage, const std::string& folder,
                                    const ConfiguredEnds& ends) {
  const std::string path = folder + "/" + kTokenizerName;
  FoundTokenizer found;
  if (!storage.exists(path)) {
    found.record.begin_id = ends.begin_id;
    found.record.end_id = ends.end_id;
    found.problem = fmt::format("there is no {} in {}", kTokenizerName, folder);
    return found;
  }
  found.record = {.name = kTokenizerName,
                  .definition = storage.read_text(path),
                  .begin_id = ends.begin_id,
                  .end_id = ends.end_id};
  if (found.record.definition == bytes_as_bpe(data::bytes_record())) {
    found.record = data::bytes_record();
    return found;
  }
  try {
    data::TokenizerRecord given = found.record;
    given.begin_id = given.end_id = data::Tokenizer::kNoId;
    data::make_tokenizer(given, path);
  } catch (const base::Error& error) {
    found.problem = error.what();
    return found;
  }
  int32_t own_begin = data::Tokenizer::kNoId, own_end = data::Tokenizer::kNoId;
  try {
    const auto tokenizer = data::make_tokenizer(storage, path);
    own_begin = tokenizer->begin_id();
    own_end = tokenizer->end_id();
  } catch (const base::Error&) {
    // It has no end of its own: config.json's it is.
  }
  const bool has_none = ends.has_begin_id && ends.begin_id == data::Tokenizer::kNoId;
  if (!puts_begin(storage, folder)) found.record.begin_id = has_none ? ends.begin_id : own_begin;
  if (ends.end_id == data::Tokenizer::kNoId) found.record.end_id = own_end;
  return found;
}

}  // namespace checkpoint
