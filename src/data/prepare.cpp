// Reads files one after another and writes each document as: begin id, text, end id. Files are
// mapped, and what is made of them is bounded by the longest document.
#include "data/prepare.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/json.h"
#include "base/math.h"
#include "data/file_kind.h"
#include "data/json_records.h"
#include "data/text_files.h"
#include "data/token_dataset.h"

namespace data {
namespace {

constexpr int64_t kProgressBytes = base::kMiB;

// How many bytes of a text that is longer than `limit` become its next document: up to a line's end
// in the second half, else up to a character's.
size_t cut_length(std::string_view text, size_t limit) {
  const size_t line_end = text.substr(0, limit).rfind('\n');
  if (line_end != std::string_view::npos && line_end >= limit / 2) return line_end + 1;
  constexpr size_t kCharacterBytesMax = 4;
  for (size_t end = limit; end > 1 && end + kCharacterBytesMax > limit; --end) {
    const bool is_inside_character = (uint8_t(text[end]) & 0xC0) == 0x80;
    if (!is_inside_character) return end;
  }
  return limit;
}

class Preparation {
 public:
  Preparation(const Tokenizer& tokenizer, const PrepareOptions& options, TokenDatasetWriter& writer,
              const std::function<void(int64_t)>& progress,
              const std::function<bool()>& stop_requested)
      : tokenizer_(tokenizer),
        options_(options),
        writer_(writer),
        progress_(progress),
        stop_requested_(stop_requested) {}

  void leave_out(std::vector<LeftOut> files) {
    report_.files.insert(report_.files.end(), files.begin(), files.end());
  }

  void add_file(const std::string& path, std::string_view content) {
    check_stop();
    FileKind kind = kind_of(path, content);
    const bool is_json = kind.form == FileKind::kJsonLines || kind.form == FileKind::kJsonValues;
    if (kind.form == FileKind::kNothing) {
      report_.files.push_back({.place = path, .reason = std::move(kind.reason)});
    } else if (is_json && !options_.json_is_text) {
      const auto form = kind.form == FileKind::kJsonLines ? JsonRecords::Form::kLines
                                                          : JsonRecords::Form::kValues;
      add_json(path, {content, form, options_.document_bytes_max});
    } else if (options_.separator.empty()) {
      add_text(content);
    } else {
      add_separated(content);
    }
  }

  bool is_full() const {
    return options_.input_bytes_max > 0 && report_.bytes >= options_.input_bytes_max;
  }

  const PrepareReport& finish() {
    if (report_.documents == 0) {
      throw base::bad_input(fmt::format(
          "cannot prepare {}: the inputs hold no text ({} files and {} bad lines were left out{})",
          options_.output_prefix, report_.files.size(), report_.bad_lines, first_reason()));
    }
    check_stop();
    writer_.finish();
    if (progress_) progress_(report_.bytes);
    return report_;
  }

 private:
  void check_stop() const {
    if (!stop_requested_ || !stop_requested_()) return;
    throw base::resource_lost(
        fmt::format("prepare was stopped; {} was not written", options_.output_prefix),
        "start it again: it begins from the beginning");
  }

  std::string first_reason() const {
    const auto& all = report_.files.empty() ? report_.first_bad_lines : report_.files;
    return all.empty() ? "" : fmt::format("; {}: {}", all.front().place, all.front().reason);
  }

  void add_separated(std::string_view content) {
    while (!content.empty() && !is_full()) {
      const std::string_view text = content.substr(0, content.find(options_.separator));
      content.remove_prefix(std::min(text.size() + options_.separator.size(), content.size()));
      if (text.find_first_not_of(" \t\r\n") != std::string_view::npos) add_text(text);
    }
  }

  void add_json(const std::string& path, JsonRecords records) {
    while (!is_full()) {
      check_stop();
      const auto record = records.next();
      if (!record) return;
      if (const auto text = text_of(*record)) {
        if (!text->empty()) add_text(*text);
      } else {
        add_bad_line({.place = fmt::format("{}:{}", path, record->line), .reason = text.reason()});
      }
    }
  }

  base::Result<std::string> text_of(const JsonRecord& record) const {
    if (record.problem) return base::Failure{record.problem};
    if (int64_t(record.text.size()) > options_.document_bytes_max) {
      return base::Failure{fmt::format("{} bytes, at most {} are allowed", record.text.size(),
                                       options_.document_bytes_max)};
    }
    const auto value = base::JsonValue::parse(record.text);
    if (!value) return base::Failure{value.reason()};
    if (record.is_element && !value->is_object()) return value->as_string();
    const auto field = value->get(options_.json_field);
    if (!field) return base::Failure{field.reason()};
    return field->as_string();
  }

  void add_bad_line(LeftOut line) {
    if (!options_.skip_bad_lines) {
      throw base::bad_input(
          fmt::format("{}: {}", line.place, line.reason),
          fmt::format("each must be a JSON object with its text in \"{}\": --field names another "
                      "key, --skip-bad-lines leaves out what is bad, --json-as-text takes JSON "
                      "files as they are",
                      options_.json_field));
    }
    ++report_.bad_lines;
    if (report_.bad_lines <= PrepareReport::kBadLinesNamed)
      report_.first_bad_lines.push_back(std::move(line));
  }

  void add_text(std::string_view text) {
    const auto limit = size_t(options_.document_bytes_max);
    if (text.size() > limit) ++report_.cut_texts;
    while (text.size() > limit && !is_full()) {
      const std::string_view document = text.substr(0, cut_length(text, limit));
      text.remove_prefix(document.size());
      add_document(document);
    }
    if (!is_full()) add_document(text);
  }

  void add_document(std::string_view text) {
    check_stop();
    std::vector<int32_t> document;
    if (tokenizer_.begin_id() != Tokenizer::kNoId) document.push_back(tokenizer_.begin_id());
    tokenizer_.append_ids(text, document);
    document.push_back(tokenizer_.end_id());
    writer_.add_document(document);

    ++report_.documents;
    report_.tokens += int64_t(document.size());
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
  const std::function<bool()>& stop_requested_;
  PrepareReport report_;
  int64_t reported_bytes_ = 0;
};

}  // namespace

PrepareReport prepare(base::Storage& storage, const Tokenizer& tokenizer,
                      const PrepareOptions& options,
                      const std::function<void(int64_t bytes)>& progress,
                      const std::function<bool()>& stop_requested) {
  const std::string& prefix = options.output_prefix;
  if (prefix.empty()) throw base::bad_input("cannot prepare: no output prefix is given");
  if (options.document_bytes_max < 1)
    throw base::bad_input("cannot prepare: documents of no bytes");
  // An earlier result may lie in a folder that is an input.
  FoundFiles files =
      find_files(options.inputs, {prefix + ".bin", prefix + ".idx", prefix + ".json"});
  const std::string folder = std::filesystem::path(prefix).parent_path().string();
  if (!folder.empty()) storage.make_directories(folder);
  const auto writer = TokenDatasetWriter::create(
      storage,
      {.prefix = prefix, .vocabulary = tokenizer.vocabulary(), .tokenizer_name = tokenizer.name()});

  Preparation preparation(tokenizer, options, *writer, progress, stop_requested);
  preparation.leave_out(std::move(files.left_out));
  for (const std::string& path : files.paths) {
    if (preparation.is_full()) break;
    const auto file = storage.map(path);
    preparation.add_file(
        path, {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
  }
  return preparation.finish();
}

}  // namespace data
