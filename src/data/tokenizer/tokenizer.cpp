#include "data/tokenizer.h"

#include <filesystem>

#include "data/tokenizer/tokenizers.h"

namespace data {

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  append_ids(text, ids);
  return ids;
}

std::unique_ptr<Tokenizer> make_tokenizer(base::Storage& storage, const std::string& name,
                                          const TokenizerOptions& options) {
  if (name == kBytesTokenizer) {
    if (options.begin_token.empty() && options.end_token.empty()) return make_byte_tokenizer();
    throw base::bad_input("the tokenizer \"bytes\" has begin and end ids of its own",
                          "leave out --begin and --end");
  }
  std::error_code error;
  if (std::filesystem::is_directory(name, error))
    return make_tokenizer(storage, (std::filesystem::path(name) / "tokenizer.json").string(),
                          options);
  if (name.ends_with(".model") || name.ends_with(".spm")) {
    throw base::bad_input(fmt::format("cannot use the tokenizer {}: a SentencePiece model", name),
                          "what is supported is the tokenizer.json of a byte-level BPE");
  }
  if (!storage.exists(name)) {
    throw base::bad_input(fmt::format("there is no tokenizer \"{}\"", name),
                          "there are: bytes, or the path of a tokenizer.json");
  }
  return make_bpe_tokenizer(name, storage.read_text(name), options);
}

}  // namespace data
