// Reads text files one after another and writes each document as: begin id, text, end id.
#include "data/prepare.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/json.h"
#include "base/math.h"
#include "data/text_files.h"
#include "data/token_dataset.h"

namespace data {
namespace {

constexpr int64_t kProgressBytes = base::kMiB;

bool is_binary(std::string_view content) {
  return content.find('\0') != std::string_view::npos;
}

class Preparation {
 public:
  Preparation(const Tokenizer& tokenizer, const PrepareOptions& options, TokenDatasetWriter& writer,
              const std::function<void(int64_t)>& progress)
      : tokenizer_(tokenizer), options_(options), writer_(writer), progress_(progress) {}

  void add_file(const std::string& path, std::string_view content) {
    const bool is_json_lines = std::filesystem::path(path).extension() == ".jsonl";
    if (content.empty() || (!is_json_lines && is_binary(content))) {
      ++report_.skipped_files;
    } else if (is_json_lines) {
      add_json_lines(path, content);
    } else {
      check_length(path, content);
      add_document(content);
    }
  }

  bool is_full() const {
    return options_.input_bytes_max > 0 && report_.bytes >= options_.input_bytes_max;
  }

  const PrepareReport& finish() {
    if (report_.documents == 0) {
      throw base::bad_input(
          fmt::format("cannot prepare {}: the inputs hold no text ({} empty or binary files)",
                      options_.output_prefix, report_.skipped_files));
    }
    writer_.finish();
    if (progress_) progress_(report_.bytes);
    return report_;
  }

 private:
  void add_json_lines(const std::string& path, std::string_view content) {
    for (int64_t line_number = 1; !content.empty() && !is_full(); ++line_number) {
      const std::string_view line = content.substr(0, content.find('\n'));
      content.remove_prefix(std::min(line.size() + 1, content.size()));
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const std::string place = fmt::format("{}:{}", path, line_number);
      check_length(place, line);
      const std::string text = text_of(place, line);
      if (!text.empty()) add_document(text);
    }
  }

  std::string text_of(const std::string& place, std::string_view line) const {
    const auto fail = [&](const std::string& reason) {
      return base::bad_input(fmt::format("{}: {}", place, reason),
                             fmt::format("each line must be a JSON object with its text in \"{}\"",
                                         options_.jsonl_field));
    };
    const auto object = base::JsonValue::parse(line);
    if (!object) throw fail(object.reason());
    const auto value = object->get(options_.jsonl_field);
    if (!value) throw fail(value.reason());
    const auto text = value->as_string();
    if (!text) throw fail(text.reason());
    return *text;
  }

  void check_length(const std::string& place, std::string_view content) const {
    if (int64_t(content.size()) <= options_.document_bytes_max) return;
    throw base::bad_input(fmt::format("{}: a document of {} bytes, at most {} are allowed", place,
                                      content.size(), options_.document_bytes_max),
                          "cut it into several documents, for instance as lines of a .jsonl file");
  }

  void add_document(std::string_view text) {
    const std::vector<int32_t> ids = tokenizer_.encode(text);
    document_.clear();
    document_.push_back(tokenizer_.begin_id());
    document_.insert(document_.end(), ids.begin(), ids.end());
    document_.push_back(tokenizer_.end_id());
    writer_.add_document(document_);

    ++report_.documents;
    report_.tokens += int64_t(document_.size());
    report_.bytes += int64_t(text.size());
    if (progress_ && report_.bytes - reported_bytes_ >= kProgressBytes) {
      progress_(report_.bytes);
      reported_bytes_ = report_.bytes;
    }
  }

  const Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  TokenDatasetWriter& writer_;
  const std::function<void(int64_t)>& progress_;
  PrepareReport report_;
  int64_t reported_bytes_ = 0;
  std::vector<int32_t> document_;  // Kept for its memory.
};

}  // namespace

PrepareReport prepare(base::Storage& storage, const Tokenizer& tokenizer,
                      const PrepareOptions& options,
                      const std::function<void(int64_t bytes)>& progress) {
  const std::string& prefix = options.output_prefix;
  if (prefix.empty()) throw base::bad_input("cannot prepare: no output prefix is given");
  // An earlier result may lie in a folder that is an input.
  const std::vector<std::string> files =
      find_files(options.inputs, {prefix + ".bin", prefix + ".idx", prefix + ".json"});
  const std::string folder = std::filesystem::path(prefix).parent_path().string();
  if (!folder.empty()) storage.make_directories(folder);
  const auto writer = TokenDatasetWriter::create(
      storage,
      {.prefix = prefix, .vocabulary = tokenizer.vocabulary(), .tokenizer_name = tokenizer.name()});

  Preparation preparation(tokenizer, options, *writer, progress);
  for (const std::string& path : files) {
    if (preparation.is_full()) break;
    const auto file = storage.map(path);
    preparation.add_file(
        path, {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
  }
  return preparation.finish();
}

}  // namespace data
