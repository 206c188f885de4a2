#include "data/document_batch.h"

#include "base/json.h"
#include "base/math.h"

namespace data {
namespace {

// So much that the threads end at about the same time, and less than what a long document takes.
constexpr int64_t kBytesPerThread = 4 * base::kMiB;
// What a thread takes at a time: short documents are not worth a call each.
constexpr int64_t kShareBytes = 64 * base::kKiB;
// Smaller entries are copied, so that not each of many small files has to stay mapped.
constexpr size_t kCopiedBytesMax = size_t(64 * base::kKiB);

}  // namespace

DocumentBatch::DocumentBatch(const Tokenizer& tokenizer, const PrepareOptions& options,
                             base::ThreadPool& pool)
    : tokenizer_(tokenizer), options_(options), pool_(pool) {}

void DocumentBatch::begin_file(const std::string& path, std::shared_ptr<const ByteSource> source) {
  paths_.push_back(path);
  source_ = std::move(source);
}

BatchEntry& DocumentBatch::add(BatchEntry::Kind kind, std::string_view bytes) {
  BatchEntry& entry = entries_.emplace_back();
  entry.kind = kind;
  entry.file = paths_.size() - 1;
  bytes_ += int64_t(bytes.size());
  if (source_->stays() && bytes.size() >= kCopiedBytesMax) {
    if (kept_.empty() || kept_.back() != source_) kept_.push_back(source_);
    entry.bytes = bytes;
  } else {
    entry.own = bytes;
  }
  return entry;
}

void DocumentBatch::add_text(std::string_view text, bool is_cut) {
  add(BatchEntry::kText, text).is_cut = is_cut;
}

void DocumentBatch::add_json(const JsonRecord& record) {
  const bool is_too_long = int64_t(record.text.size()) > options_.document_bytes_max;
  BatchEntry& entry =
      add(BatchEntry::kJson, record.problem || is_too_long ? std::string_view() : record.text);
  entry.line = record.line;
  entry.is_element = record.is_element;
  if (record.problem) {
    entry.failure = record.problem;
  } else if (is_too_long) {
    entry.failure = fmt::format("{} bytes, at most {} are allowed", record.text.size(),
                                options_.document_bytes_max);
  }
}

void DocumentBatch::add_bad_file(std::string reason) {
  add(BatchEntry::kBadFile, {}).failure = std::move(reason);
}

bool DocumentBatch::is_full() const {
  const auto threads = int64_t(pool_.thread_count());
  return bytes_ >= threads * kBytesPerThread && int64_t(entries_.size()) >= threads;
}

std::string DocumentBatch::place_of(const BatchEntry& entry) const {
  const std::string& path = paths_[entry.file];
  return entry.line == 0 ? path : fmt::format("{}:{}", path, entry.line);
}

void DocumentBatch::clear() {
  entries_.clear();
  bytes_ = 0;
  kept_.clear();
  if (paths_.empty()) return;
  paths_.erase(paths_.begin(), paths_.end() - 1);
}

void DocumentBatch::encode() {
  std::vector<size_t> share_begins;
  int64_t share_bytes = kShareBytes;
  for (size_t i = 0; i < entries_.size(); ++i) {
    BatchEntry& entry = entries_[i];
    if (!entry.own.empty()) entry.bytes = entry.own;
    if (share_bytes >= kShareBytes) {
      share_begins.push_back(i);
      share_bytes = 0;
    }
    share_bytes += int64_t(entry.bytes.size());
  }
  share_begins.push_back(entries_.size());
  pool_.parallel_items(int64_t(share_begins.size()) - 1, [&](int64_t share, int) {
    for (size_t i = share_begins[size_t(share)]; i < share_begins[size_t(share) + 1]; ++i)
      encode(entries_[i]);
  });
}

void DocumentBatch::encode(BatchEntry& entry) const {
  if (!entry.failure.empty()) return;
  std::string parsed;
  std::string_view text = entry.bytes;
  if (entry.kind == BatchEntry::kJson) {
    auto result = text_of(entry);
    if (!result) {
      entry.failure = result.reason();
      return;
    }
    parsed = std::move(*result);
    text = parsed;
  }
  entry.text_bytes = int64_t(text.size());
  if (text.empty()) return;
  if (tokenizer_.begin_id() != Tokenizer::kNoId) entry.ids.push_back(tokenizer_.begin_id());
  tokenizer_.append_ids(text, entry.ids);
  entry.ids.push_back(tokenizer_.end_id());
}

base::Result<std::string> DocumentBatch::text_of(const BatchEntry& entry) const {
  const auto value = base::JsonValue::parse(entry.bytes);
  if (!value) return base::Failure{value.reason()};
  if (entry.is_element && !value->is_object()) return value->as_string();
  const auto field = value->get(options_.json_field);
  if (!field) return base::Failure{field.reason()};
  return field->as_string();
}

}  // namespace data
