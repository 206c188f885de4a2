// NAME.ds has the tokens, uint16 or uint32; NAME.ds.index a uint64 for each document, the token
// behind its last one; NAME.ds.metadata, which may be missing, the tokenizer's name, a bar and the
// bytes per token in its first line, and the number of tokens in its second.
#include "data/datatrove_dataset.h"

#include <charconv>

#include "base/math.h"
#include "data/mapped_numbers.h"

namespace data {
namespace {

constexpr int64_t kMetadataBytesMax = base::kMiB;

struct Metadata {
  std::string tokenizer_name;
  int64_t token_bytes = 0;   // 0: not said.
  int64_t token_count = -1;  // -1: not said.
};

// A whole text of digits; -1 for anything else.
int64_t parse_count(std::string_view text) {
  int64_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : -1;
}

Metadata read_metadata(base::Storage& storage, const std::string& path) {
  if (!storage.exists(path)) return {};
  const auto file = storage.map(path);
  if (int64_t(file->bytes().size()) > kMetadataBytesMax)
    throw damaged_dataset(path, "too long for a description");
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                              file->bytes().size());
  const auto line_after = [&](size_t begin) {
    const std::string_view rest = text.substr(std::min(begin, text.size()));
    return rest.substr(0, rest.find_first_of("\r\n"));
  };
  const std::string_view first = line_after(0);
  const size_t second = text.find('\n');
  Metadata result{.tokenizer_name = std::string(first)};
  if (second != std::string_view::npos) result.token_count = parse_count(line_after(second + 1));
  const size_t bar = first.rfind('|');
  // Older files do not say the width, and a name may have a bar.
  if (bar == std::string_view::npos || parse_count(first.substr(bar + 1)) < 0) return result;
  result.tokenizer_name.resize(bar);
  result.token_bytes = parse_count(first.substr(bar + 1));
  return result;
}

class DatatroveDataset : public TokenDataset {
 public:
  DatatroveDataset(base::Storage& storage, const std::string& prefix, const std::string& path)
      : prefix_(prefix),
        metadata_(read_metadata(storage, path + ".metadata")),
        token_file_(storage.map(path)),
        index_file_(storage.map(path + ".index")) {
    check_index(path + ".index");
    choose_width(path);
    if (metadata_.token_count >= 0 && metadata_.token_count != token_count()) {
      throw damaged_dataset(path + ".metadata",
                            fmt::format("it speaks of {} tokens, but the index has {}",
                                        metadata_.token_count, token_count()));
    }
  }

  const std::string& prefix() const override { return prefix_; }
  int64_t document_count() const override { return document_count_; }
  int64_t token_count() const override {
    return document_count_ == 0 ? 0 : end_of(document_count_ - 1);
  }
  int64_t vocabulary() const override { return 0; }
  std::string tokenizer_name() const override { return metadata_.tokenizer_name; }

  int64_t document_length(int64_t document) const override {
    CHECK(document >= 0 && document < document_count_, "document {} of {}", document,
          document_count_);
    return end_of(document) - begin_of(document);
  }

  void read(int64_t document, int64_t begin, std::span<int32_t> out) const override {
    const int64_t length = document_length(document);
    CHECK(begin >= 0 && begin <= length && int64_t(out.size()) <= length - begin,
          "{} tokens from {} of a document of {}", out.size(), begin, length);
    const std::byte* source =
        token_file_->bytes().data() + (begin_of(document) + begin) * token_bytes_;
    token_bytes_ == 2 ? copy_tokens<uint16_t>(source, out) : copy_tokens<uint32_t>(source, out);
  }

 private:
  int64_t end_of(int64_t document) const {
    return load_number<int64_t>(index_file_->bytes(), 8 * document);
  }
  int64_t begin_of(int64_t document) const { return document == 0 ? 0 : end_of(document - 1); }

  void check_index(const std::string& path) {
    const auto bytes = int64_t(index_file_->bytes().size());
    if (bytes % 8 != 0)
      throw damaged_dataset(path, fmt::format("{} bytes, no multiple of 8", bytes));
    document_count_ = bytes / 8;
    const auto tokens_max = int64_t(token_file_->bytes().size()) / 2;
    int64_t previous = 0;
    for (int64_t i = 0; i < document_count_; ++i) {
      const int64_t end = end_of(i);
      if (end < previous || end > tokens_max) {
        throw damaged_dataset(
            path,
            fmt::format("document {} ends at token {}, after {}; the .ds file has room for {}", i,
                        uint64_t(end), previous, tokens_max));
      }
      previous = end;
    }
  }

  // No file says it reliably, but the number of tokens and the size of their file do.
  void choose_width(const std::string& path) {
    const auto bytes = int64_t(token_file_->bytes().size());
    const int64_t tokens = token_count();
    token_bytes_ = bytes == 4 * tokens && tokens > 0 ? 4 : 2;
    if (bytes != token_bytes_ * tokens) {
      throw damaged_dataset(
          path, fmt::format("{} bytes, but the {} tokens of its index take {} or {}", bytes, tokens,
                            2 * tokens, 4 * tokens));
    }
    if (metadata_.token_bytes != 0 && tokens > 0 && metadata_.token_bytes != token_bytes_) {
      throw damaged_dataset(path + ".metadata",
                            fmt::format("it speaks of {} bytes per token, but the .ds file has {}",
                                        metadata_.token_bytes, token_bytes_));
    }
  }

  const std::string prefix_;
  const Metadata metadata_;
  const std::unique_ptr<base::MappedFile> token_file_, index_file_;
  int64_t document_count_ = 0;
  int64_t token_bytes_ = 2;
};

}  // namespace

std::unique_ptr<TokenDataset> open_datatrove(base::Storage& storage, const std::string& prefix,
                                             const std::string& path) {
  if (!storage.exists(path + ".index")) {
    throw base::bad_input(
        fmt::format("cannot open the token dataset {}: there is no {}.index", prefix, path),
        "datatrove writes it unless save_index is off; without it nobody knows where documents "
        "end");
  }
  return std::make_unique<DatatroveDataset>(storage, prefix, path);
}

}  // namespace data
