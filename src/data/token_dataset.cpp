// Reads a token dataset. The one idea: nothing is copied out of the index. Both files stay mapped,
// every number in them is checked once when the dataset is opened, and from then on a document is
// found by two loads.
#include "data/token_dataset.h"

#include <cstring>

#include "base/json.h"
#include "base/math.h"
#include "data/datatrove_dataset.h"
#include "data/mapped_numbers.h"
#include "data/token_format.h"

namespace data {
namespace {

constexpr const char* kDatatroveEnding = ".ds";
constexpr int64_t kDescriptionBytesMax = base::kMiB;

// The arrays of an index file, in place.
struct Index {
  std::span<const std::byte> bytes;
  TokenType type{};
  int64_t sequence_count = 0;
  int64_t document_index_count = 0;

  int64_t length(int64_t i) const { return load_number<int32_t>(bytes, kIndexHeaderBytes + 4 * i); }
  int64_t byte_offset(int64_t i) const {
    return load_number<int64_t>(bytes, kIndexHeaderBytes + 4 * sequence_count + 8 * i);
  }
  int64_t document_index(int64_t i) const {
    return load_number<int64_t>(bytes, kIndexHeaderBytes + 12 * sequence_count + 8 * i);
  }
};

Index parse_header(const std::string& path, std::span<const std::byte> bytes) {
  if (int64_t(bytes.size()) < kIndexHeaderBytes) {
    throw damaged_dataset(
        path, fmt::format("{} bytes, but the header has {}", bytes.size(), kIndexHeaderBytes));
  }
  if (std::memcmp(bytes.data(), kIndexMagic.data(), kIndexMagic.size()) != 0) {
    throw damaged_dataset(path, "it does not start with MMIDIDX");
  }
  const auto version = load_number<uint64_t>(bytes, 9);
  if (version != kIndexVersion)
    throw damaged_dataset(path, fmt::format("version {}, expected 1", version));
  Index index{.bytes = bytes, .type = TokenType(load_number<uint8_t>(bytes, 17))};
  if (token_bytes(index.type) == 0) {
    throw damaged_dataset(
        path, fmt::format("token type {}, expected 1 (uint8), 3 (int16), 4 (int32) or 8 (uint16)",
                          int(index.type)));
  }
  const auto sequences = load_number<uint64_t>(bytes, 18);
  const auto entries = load_number<uint64_t>(bytes, 26);
  // Each count is first compared with what there is room for, so that the products cannot overflow.
  const uint64_t room = bytes.size() - uint64_t(kIndexHeaderBytes);
  if (sequences > room / 12 || entries > room / 8 || 12 * sequences + 8 * entries != room) {
    throw damaged_dataset(
        path,
        fmt::format("{} sequences and {} document index entries do not fit a file of {} bytes",
                    sequences, entries, bytes.size()));
  }
  index.sequence_count = int64_t(sequences);
  index.document_index_count = int64_t(entries);
  return index;
}

// Returns the number of tokens. Sequences may lie in any order, but together they cannot be more
// than the file holds.
int64_t check_sequences(const std::string& path, const Index& index, int64_t bin_bytes) {
  const int64_t width = token_bytes(index.type);
  int64_t tokens = 0;
  for (int64_t i = 0; i < index.sequence_count; ++i) {
    const int64_t length = index.length(i);
    const int64_t offset = index.byte_offset(i);
    const bool fits = length >= 0 && offset >= 0 && offset % width == 0 && offset <= bin_bytes &&
                      length <= (bin_bytes - offset) / width;
    if (!fits) {
      throw damaged_dataset(
          path,
          fmt::format(
              "sequence {} has {} tokens of {} bytes at byte {}, but the .bin file has {} bytes", i,
              length, width, offset, bin_bytes));
    }
    tokens += length;
    if (tokens > bin_bytes / width)
      throw damaged_dataset(path, fmt::format("sequences up to {} overlap", i));
  }
  return tokens;
}

// Which sequences form a document does not matter here, and tools differ in whether they write the
// last entry; but numbers that do not rise from 0 to the sequence count mean that the file is not
// what it says.
void check_document_index(const std::string& path, const Index& index) {
  int64_t previous = 0;
  for (int64_t i = 0; i < index.document_index_count; ++i) {
    const int64_t entry = index.document_index(i);
    if (entry < previous || entry > index.sequence_count || (i == 0 && entry != 0)) {
      throw damaged_dataset(
          path, fmt::format("document index entry {} is {}, after {} and with {} sequences", i,
                            entry, previous, index.sequence_count));
    }
    previous = entry;
  }
}

// What PREFIX.json says.
struct Description {
  std::string tokenizer_name;
  int64_t vocabulary = 0;
  std::string tokenizer_sha256 = {};
  std::optional<TokenDataset::Ends> ends = {};
};

Description read_description(base::Storage& storage, const std::string& path, int64_t documents,
                             int64_t tokens) {
  if (!storage.exists(path)) return {};
  const auto fail = [&](const std::string& found) {
    return base::bad_input(
        fmt::format("cannot read {}: {}", path, found),
        "if it does not describe the token dataset beside it, give it another name");
  };
  const auto file = storage.map(path);
  if (int64_t(file->bytes().size()) > kDescriptionBytesMax)
    throw fail("too long for a description");
  const auto json = base::JsonValue::parse(
      {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
  if (!json) throw fail(json.reason());

  const auto field = [&](const char* name) {
    const auto value = json->get(name);
    if (!value) throw fail(value.reason());
    return *value;
  };
  const auto integer = [&](const char* name) {
    const auto value = field(name).as_integer();
    if (!value) throw fail(value.reason());
    return *value;
  };
  const auto tokenizer = field("tokenizer").as_string();
  if (!tokenizer) throw fail(tokenizer.reason());
  const int64_t vocabulary = integer("vocabulary");
  if (vocabulary < 1 || vocabulary > kVocabularyMax)
    throw fail(fmt::format("vocabulary {}", vocabulary));
  if (integer("documents") != documents || integer("tokens") != tokens) {
    throw fail(
        fmt::format("it speaks of {} documents and {} tokens, but the .idx file has {} and {}",
                    integer("documents"), integer("tokens"), documents, tokens));
  }
  Description description{.tokenizer_name = *tokenizer, .vocabulary = vocabulary};
  if (json->has("tokenizer_sha256")) {
    const auto digest = field("tokenizer_sha256").as_string();
    if (!digest) throw fail(digest.reason());
    description.tokenizer_sha256 = *digest;
  }
  const auto id = [&](const char* name) {
    if (!json->has(name)) return int32_t{-1};
    const int64_t value = integer(name);
    if (value < 0 || value >= vocabulary) throw fail(fmt::format("{} {}", name, value));
    return int32_t(value);
  };
  // Files of before there were such ids say neither.
  if (json->has("begin_id") || json->has("end_id"))
    description.ends = TokenDataset::Ends{.begin_id = id("begin_id"), .end_id = id("end_id")};
  return description;
}

class MappedDataset : public TokenDataset {
 public:
  MappedDataset(base::Storage& storage, const std::string& prefix)
      : prefix_(prefix),
        index_file_(storage.map(prefix + ".idx")),
        bin_file_(storage.map(prefix + ".bin")),
        index_(parse_header(prefix + ".idx", index_file_->bytes())),
        token_count_(check_sequences(prefix + ".idx", index_, int64_t(bin_file_->bytes().size()))) {
    check_document_index(prefix + ".idx", index_);
    description_ = read_description(storage, prefix + ".json", index_.sequence_count, token_count_);
  }

  const std::string& prefix() const override { return prefix_; }
  int64_t document_count() const override { return index_.sequence_count; }
  int64_t token_count() const override { return token_count_; }
  int64_t vocabulary() const override { return description_.vocabulary; }
  std::string tokenizer_name() const override { return description_.tokenizer_name; }
  std::string tokenizer_sha256() const override { return description_.tokenizer_sha256; }
  std::optional<Ends> ends() const override { return description_.ends; }

  int64_t document_length(int64_t document) const override {
    CHECK(document >= 0 && document < index_.sequence_count, "document {} of {}", document,
          index_.sequence_count);
    return index_.length(document);
  }

  void read(int64_t document, int64_t begin, std::span<int32_t> out) const override {
    const int64_t length = document_length(document);
    CHECK(begin >= 0 && begin <= length && int64_t(out.size()) <= length - begin,
          "{} tokens from {} of a document of {}", out.size(), begin, length);
    const std::byte* source =
        bin_file_->bytes().data() + index_.byte_offset(document) + begin * token_bytes(index_.type);
    switch (index_.type) {
      case TokenType::kUint8:
        return copy_tokens<uint8_t>(source, out);
      case TokenType::kInt16:
        return copy_tokens<int16_t>(source, out);
      case TokenType::kInt32:
        return copy_tokens<int32_t>(source, out);
      case TokenType::kUint16:
        return copy_tokens<uint16_t>(source, out);
    }
  }

 private:
  const std::string prefix_;
  const std::unique_ptr<base::MappedFile> index_file_, bin_file_;
  const Index index_;
  const int64_t token_count_;
  Description description_;
};

}  // namespace

std::unique_ptr<TokenDataset> TokenDataset::open(base::Storage& storage,
                                                 const std::string& prefix) {
  if (prefix.ends_with(kDatatroveEnding)) return open_datatrove(storage, prefix, prefix);
  if (!storage.exists(prefix + ".idx") && storage.exists(prefix + kDatatroveEnding))
    return open_datatrove(storage, prefix, prefix + kDatatroveEnding);
  for (const char* ending : {".idx", ".bin"}) {
    if (storage.exists(prefix + ending)) continue;
    throw base::bad_input(
        fmt::format("cannot open the token dataset {}: there is no {}{}", prefix, prefix, ending),
        "give the path without .idx or .bin; a dataset whose making was cut short has no .idx "
        "file");
  }
  return std::make_unique<MappedDataset>(storage, prefix);
}

}  // namespace data
