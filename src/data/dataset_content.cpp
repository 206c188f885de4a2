// Reads in pieces that stay in the processor's cache.
#include "data/dataset_content.h"

#include <algorithm>
#include <vector>

#include "data/number_hash.h"

namespace data {
namespace {

constexpr int64_t kPieceTokens = 16 * 1024;

class ContentReader {
 public:
  explicit ContentReader(const TokenDataset& dataset) : dataset_(dataset) {}

  DocumentName add_document(int64_t document) {
    const int64_t length = dataset_.document_length(document);
    uint32_t checksum = 0;
    for (int64_t begin = 0; begin < length; begin += kPieceTokens) {
      piece_.resize(size_t(std::min(kPieceTokens, length - begin)));
      dataset_.read(document, begin, piece_);
      checksum = base::crc32c(std::as_bytes(std::span(piece_)), checksum);
      add_extremes(document, begin);
    }
    const DocumentName name = uint64_t(length) << 32 | checksum;
    names_.add(name);
    return name;
  }

  DatasetContent finish() {
    content_.digest = names_.finish();
    return content_;
  }

 private:
  void add_extremes(int64_t document, int64_t begin) {
    int32_t smallest = piece_.front(), largest = piece_.front();
    for (const int32_t id : piece_) {
      smallest = std::min(smallest, id);
      largest = std::max(largest, id);
    }
    const bool is_first = content_.largest.document < 0;
    const auto place = [&](int32_t id) -> TokenPlace {
      const int64_t offset = std::find(piece_.begin(), piece_.end(), id) - piece_.begin();
      return {.id = id, .document = document, .position = begin + offset};
    };
    if (is_first || smallest < content_.smallest.id) content_.smallest = place(smallest);
    if (is_first || largest > content_.largest.id) content_.largest = place(largest);
  }

  const TokenDataset& dataset_;
  DatasetContent content_;
  NumberHash names_;
  std::vector<int32_t> piece_;
};

}  // namespace

DatasetContent read_content(
    const TokenDataset& dataset,
    const std::function<void(int64_t document, DocumentName)>& on_document) {
  ContentReader reader(dataset);
  for (int64_t document = 0; document < dataset.document_count(); ++document) {
    const DocumentName name = reader.add_document(document);
    if (on_document) on_document(document, name);
  }
  return reader.finish();
}

}  // namespace data
