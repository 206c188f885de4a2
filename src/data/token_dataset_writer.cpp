// Writes a token dataset. The one idea: the index is what makes a dataset exist. An older index is
// removed first, the new one gets its name last, so that whatever a crash leaves behind is a whole
// dataset or none.
#include <cstring>
#include <filesystem>
#include <limits>
#include <vector>

#include "base/hash.h"
#include "base/json.h"
#include "base/math.h"
#include "data/token_dataset.h"
#include "data/token_format.h"

namespace data {
namespace {

// Gathers small numbers into large writes.
class NumberWriter {
 public:
  explicit NumberWriter(base::OutputFile& file) : file_(file), buffer_(size_t(base::kMiB)) {}

  template <class T>
  void put(T value) {
    if (used_ + sizeof(T) > buffer_.size()) flush();
    std::memcpy(buffer_.data() + used_, &value, sizeof(T));
    used_ += sizeof(T);
  }
  void flush() {
    file_.write(std::span(buffer_).first(used_));
    used_ = 0;
  }

 private:
  base::OutputFile& file_;
  std::vector<std::byte> buffer_;
  size_t used_ = 0;
};

class Writer : public TokenDatasetWriter {
 public:
  Writer(base::Storage& storage, const Options& options)
      : storage_(storage),
        options_(options),
        type_(options.vocabulary <= 65536 ? TokenType::kUint16 : TokenType::kInt32),
        bin_file_(storage.create(options.prefix + ".bin")),
        bin_(*bin_file_) {}

  void add_document(std::span<const int32_t> tokens) override {
    CHECK(!finished_, "{}: a document after finish()", options_.prefix);
    if (int64_t(tokens.size()) > std::numeric_limits<int32_t>::max()) {
      throw base::bad_input(
          fmt::format("cannot write {}: document {} has {} tokens, more than the format can say",
                      options_.prefix, lengths_.size(), tokens.size()));
    }
    for (const int32_t id : tokens) {
      if (id < 0 || id >= options_.vocabulary) {
        throw base::bad_input(
            fmt::format("cannot write {}: document {} has token id {}, but the vocabulary has {}",
                        options_.prefix, lengths_.size(), id, options_.vocabulary));
      }
      type_ == TokenType::kUint16 ? bin_.put(uint16_t(id)) : bin_.put(id);
    }
    lengths_.push_back(int32_t(tokens.size()));
    token_count_ += int64_t(tokens.size());
  }

  void finish() override {
    CHECK(!finished_, "{}: finish() twice", options_.prefix);
    finished_ = true;
    bin_.flush();
    const std::string folder = std::filesystem::path(options_.prefix).parent_path().string();
    storage_.remove_all(options_.prefix + ".idx");
    storage_.sync_directory(folder.empty() ? "." : folder);
    bin_file_->commit();
    if (options_.tokenizer_definition.empty()) {
      storage_.remove_all(options_.prefix + kTokenizerEnding);
    } else {
      storage_.write_atomically(options_.prefix + kTokenizerEnding, options_.tokenizer_definition);
    }
    storage_.write_atomically(options_.prefix + ".json", description());
    write_index();
  }

 private:
  std::string description() const {
    base::JsonWriter json(2);
    json.begin_object().field("tokenizer", options_.tokenizer_name);
    if (!options_.tokenizer_definition.empty()) {
      const auto digest = base::sha256(std::as_bytes(std::span(options_.tokenizer_definition)));
      json.field("tokenizer_sha256", digest.hex());
    }
    if (options_.begin_id >= 0) json.field("begin_id", options_.begin_id);
    if (options_.end_id >= 0) json.field("end_id", options_.end_id);
    json.field("vocabulary", options_.vocabulary)
        .field("documents", int64_t(lengths_.size()))
        .field("tokens", token_count_)
        .end_object();
    return json.text() + "\n";
  }

  void write_index() {
    const auto file = storage_.create(options_.prefix + ".idx");
    NumberWriter index(*file);
    for (const char letter : kIndexMagic) index.put(letter);
    index.put(kIndexVersion);
    index.put(type_);
    index.put(uint64_t(lengths_.size()));
    index.put(uint64_t(lengths_.size()) + 1);
    for (const int32_t length : lengths_) index.put(length);
    int64_t offset = 0;
    for (const int32_t length : lengths_) {
      index.put(offset);
      offset += length * token_bytes(type_);
    }
    for (int64_t i = 0; i <= int64_t(lengths_.size()); ++i) index.put(i);
    index.flush();
    file->commit();
  }

  base::Storage& storage_;
  const Options options_;
  const TokenType type_;
  const std::unique_ptr<base::OutputFile> bin_file_;
  NumberWriter bin_;
  std::vector<int32_t> lengths_;
  int64_t token_count_ = 0;
  bool finished_ = false;
};

}  // namespace

std::unique_ptr<TokenDatasetWriter> TokenDatasetWriter::create(base::Storage& storage,
                                                               const Options& options) {
  if (options.vocabulary < 1 || options.vocabulary > kVocabularyMax) {
    throw base::bad_input(
        fmt::format("cannot write {}: a vocabulary of {} ids", options.prefix, options.vocabulary));
  }
  return std::make_unique<Writer>(storage, options);
}

}  // namespace data
