#include "data/tokenizer_record.h"

#include <filesystem>

#include "base/hash.h"
#include "data/tokenizer/tokenizers.h"

namespace data {
namespace {

// NAME.ds is data of datatrove: NAME.tokenizer.json may lie beside it.
std::string definition_path(const TokenDataset& dataset) {
  std::filesystem::path prefix = dataset.prefix();
  if (prefix.extension() == ".ds") prefix.replace_extension();
  return prefix.string() + kTokenizerEnding;
}

void require_digest(const std::string& path, const std::string& text, const std::string& expected) {
  const std::string found = base::sha256(std::as_bytes(std::span(text))).hex();
  if (expected.empty() || found == expected) return;
  throw base::bad_input(
      fmt::format("{} is not the tokenizer that the data were made with: its SHA-256 is {}, "
                  "expected {}",
                  path, found, expected),
      "put the right one in its place, or prepare the data again");
}

}  // namespace

TokenizerRecord bytes_record() {
  return record_of(*make_byte_tokenizer());
}

TokenizerRecord record_of(const Tokenizer& tokenizer) {
  return {.name = tokenizer.name(),
          .definition = tokenizer.definition(),
          .begin_id = tokenizer.begin_id(),
          .end_id = tokenizer.end_id()};
}

TokenizerRecord tokenizer_of(base::Storage& storage, const TokenDataset& dataset) {
  const std::string name = dataset.tokenizer_name();
  if (name == kBytesTokenizer) return bytes_record();
  const std::string path = definition_path(dataset);
  if (!storage.exists(path)) return {.name = name};
  std::string text = storage.read_text(path);
  require_digest(path, text, dataset.tokenizer_sha256());
  const auto ends = dataset.ends();
  if (!ends) {
    TokenizerRecord record = record_of(*make_bpe_tokenizer(path, std::move(text), {}));
    if (!name.empty()) record.name = name;
    return record;
  }
  return {.name = name,
          .definition = std::move(text),
          .begin_id = ends->begin_id,
          .end_id = ends->end_id};
}

std::unique_ptr<Tokenizer> make_tokenizer(const TokenizerRecord& record, const std::string& where) {
  CHECK(record.is_whole());
  if (record.name == kBytesTokenizer) return make_byte_tokenizer();
  const TokenizerOptions options{
      .ids = TokenizerOptions::Ids{.begin = record.begin_id, .end = record.end_id}};
  return make_bpe_tokenizer(where, record.definition, options, record.name);
}

}  // namespace data
