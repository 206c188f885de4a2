// Documents on their way from files to tokens, some at a time: gathered by one thread, encoded by
// all, taken out in their order. So the result does not depend on how many threads there are.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread.h"
#include "data/byte_source.h"
#include "data/json_records.h"
#include "data/prepare.h"
#include "data/tokenizer.h"

namespace data {

// One document, or why there is none.
struct BatchEntry {
  enum Kind { kText, kJson, kBadFile };
  Kind kind = kText;
  std::string own;          // Bytes of a source that does not stay.
  std::string_view bytes;   // Text, or JSON with a text in it.
  bool is_element = false;  // Of a JSON array.
  size_t file = 0;          // An index of DocumentBatch::paths().
  int64_t line = 0;         // 0: the file as a whole.
  bool is_cut = false;      // The first part of a text that was too long.

  // What encode() makes of it.
  std::string failure;     // Empty: it is a document.
  int64_t text_bytes = 0;  // 0: an empty text, which is no document.
  std::vector<int32_t> ids;
};

class DocumentBatch {
 public:
  DocumentBatch(const Tokenizer& tokenizer, const PrepareOptions& options, base::ThreadPool& pool);

  // Entries that follow are of this file; the batch keeps the source as long as it needs it.
  void begin_file(const std::string& path, std::shared_ptr<const ByteSource> source);
  void add_text(std::string_view text, bool is_cut);
  void add_json(const JsonRecord& record);
  void add_bad_file(std::string reason);
  // There is work for all threads, and the memory that is meant for it is used.
  bool is_full() const;

  void encode();
  const std::vector<BatchEntry>& entries() const { return entries_; }
  // "path" or "path:line".
  std::string place_of(const BatchEntry& entry) const;
  // Entries are gone, and the last file goes on.
  void clear();

 private:
  BatchEntry& add(BatchEntry::Kind kind, std::string_view bytes);
  void encode(BatchEntry& entry) const;
  base::Result<std::string> text_of(const BatchEntry& entry) const;

  const Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  base::ThreadPool& pool_;
  std::vector<std::string> paths_;
  std::shared_ptr<const ByteSource> source_;             // Of the last path.
  std::vector<std::shared_ptr<const ByteSource>> kept_;  // Entries point into them.
  std::vector<BatchEntry> entries_;
  int64_t bytes_ = 0;
};

}  // namespace data
