// Reads files one after another and writes each document as: begin id, text, end id. What is read
// is bounded by the longest documents, as many as there are threads.
#include "data/prepare.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/math.h"
#include "data/document_batch.h"
#include "data/file_kind.h"
#include "data/json_records.h"
#include "data/text_files.h"
#include "data/text_records.h"
#include "data/token_dataset.h"

namespace data {
namespace {

constexpr int64_t kProgressBytes = base::kMiB;

class Preparation {
 public:
  Preparation(const Tokenizer& tokenizer, const PrepareOptions& options, TokenDatasetWriter& writer,
              const std::function<void(const PrepareProgress&)>& progress,
              const std::function<bool()>& stop_requested)
      : tokenizer_(tokenizer),
        options_(options),
        writer_(writer),
        progress_(progress),
        stop_requested_(stop_requested),
        pool_(options.threads),
        batch_(tokenizer, options, pool_) {}

  void expect(int64_t input_bytes) { now_.input_bytes_total = input_bytes; }

  void leave_out(std::vector<LeftOut> files) {
    report_.files.insert(report_.files.end(), files.begin(), files.end());
  }

  void add_file(const std::string& path, std::shared_ptr<ByteSource> source) {
    check_stop();
    source->extend_to(kKindBytes);
    FileKind kind = kind_of(path, source->window());
    if (kind.form == FileKind::kRefused)
      throw base::bad_input(fmt::format("cannot prepare {}: {}", path, kind.reason), kind.hint);
    const int64_t before = now_.input_bytes;
    batch_.begin_file(path, source);
    if (!source->problem().empty() && source->window().empty()) {
      batch_.add_bad_file(source->problem());
    } else if (kind.form == FileKind::kNothing) {
      report_.files.push_back({.place = path, .reason = std::move(kind.reason)});
    } else {
      read_records(kind.form, *source, before);
    }
    now_.input_bytes = before + source->position();
  }

  bool is_full() const {
    return options_.input_bytes_max > 0 && report_.bytes >= options_.input_bytes_max;
  }

  const PrepareReport& finish() {
    write_batch();
    if (report_.documents == 0) {
      throw base::bad_input(fmt::format(
          "cannot prepare {}: the inputs hold no text ({} files and {} bad lines were left out{})",
          options_.output_prefix, report_.files.size(), report_.bad_lines, first_reason()));
    }
    check_stop();
    writer_.finish();
    now_.input_bytes = now_.input_bytes_total;
    tell_progress();
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

  void read_records(FileKind::Form form, ByteSource& source, int64_t input_bytes_before) {
    const auto add_all = [&](auto& records, const auto& add) {
      while (!is_full()) {
        const auto record = records.next();
        // What the packed data end in is no record.
        if (!source.problem().empty()) return batch_.add_bad_file(source.problem());
        if (!record) return;
        add(*record);
        if (!batch_.is_full()) continue;
        now_.input_bytes = input_bytes_before + source.position();
        write_batch();
      }
    };
    if (form == FileKind::kText || options_.json_is_text) {
      TextRecords records(source, options_.separator, options_.document_bytes_max);
      add_all(records, [&](const TextRecord& one) { batch_.add_text(one.text, one.is_cut); });
    } else {
      JsonRecords records(
          source,
          form == FileKind::kJsonLines ? JsonRecords::Form::kLines : JsonRecords::Form::kValues,
          options_.document_bytes_max);
      add_all(records, [&](const JsonRecord& one) { batch_.add_json(one); });
    }
  }

  void write_batch() {
    batch_.encode();
    for (const BatchEntry& entry : batch_.entries()) {
      if (is_full()) break;
      check_stop();
      write_entry(entry);
    }
    batch_.clear();
  }

  void write_entry(const BatchEntry& entry) {
    if (!entry.failure.empty())
      return add_bad({.place = batch_.place_of(entry), .reason = entry.failure},
                     entry.kind == BatchEntry::kBadFile);
    if (entry.is_cut) ++report_.cut_texts;
    if (entry.text_bytes == 0) return;
    writer_.add_document(entry.ids);
    ++report_.documents;
    report_.tokens += int64_t(entry.ids.size());
    report_.bytes += entry.text_bytes;
    if (report_.bytes - now_.text_bytes >= kProgressBytes) tell_progress();
  }

  void add_bad(LeftOut one, bool is_file) {
    if (!options_.skip_bad_lines) {
      throw base::bad_input(
          fmt::format("{}: {}", one.place, one.reason),
          is_file ? "pack or copy it again; --skip-bad-lines leaves out what cannot be unpacked"
                  : fmt::format(
                        "each must be a JSON object with its text in \"{}\": --field names another "
                        "key, --skip-bad-lines leaves out what is bad, --json-as-text takes JSON "
                        "files as they are",
                        options_.json_field));
    }
    if (is_file) return report_.files.push_back(std::move(one));
    ++report_.bad_lines;
    if (report_.bad_lines <= PrepareReport::kBadLinesNamed)
      report_.first_bad_lines.push_back(std::move(one));
  }

  void tell_progress() {
    now_.text_bytes = report_.bytes;
    now_.tokens = report_.tokens;
    if (progress_) progress_(now_);
  }

  const Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  TokenDatasetWriter& writer_;
  const std::function<void(const PrepareProgress&)>& progress_;
  const std::function<bool()>& stop_requested_;
  base::ThreadPool pool_;
  DocumentBatch batch_;
  PrepareReport report_;
  PrepareProgress now_;
};

int64_t size_of(const std::vector<std::string>& paths) {
  int64_t bytes = 0;
  for (const std::string& path : paths) {
    std::error_code error;  // It is only for the progress; reading the file will say more.
    const auto size = std::filesystem::file_size(path, error);
    if (!error) bytes += int64_t(size);
  }
  return bytes;
}

}  // namespace

PrepareReport prepare(base::Storage& storage, const Tokenizer& tokenizer,
                      const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress,
                      const std::function<bool()>& stop_requested) {
  const std::string& prefix = options.output_prefix;
  if (prefix.empty()) throw base::bad_input("cannot prepare: no output prefix is given");
  if (options.document_bytes_max < 1)
    throw base::bad_input("cannot prepare: documents of no bytes");
  // An earlier result may lie in a folder that is an input.
  FoundFiles files = find_files(options.inputs, {prefix + ".bin", prefix + ".idx", prefix + ".json",
                                                 prefix + kTokenizerEnding});
  const std::string folder = std::filesystem::path(prefix).parent_path().string();
  if (!folder.empty()) storage.make_directories(folder);
  const auto writer =
      TokenDatasetWriter::create(storage, {.prefix = prefix,
                                           .vocabulary = tokenizer.vocabulary(),
                                           .tokenizer_name = tokenizer.name(),
                                           .tokenizer_definition = tokenizer.definition(),
                                           .begin_id = tokenizer.begin_id(),
                                           .end_id = tokenizer.end_id()});

  Preparation preparation(tokenizer, options, *writer, progress, stop_requested);
  preparation.expect(size_of(files.paths));
  preparation.leave_out(std::move(files.left_out));
  for (const std::string& path : files.paths) {
    if (preparation.is_full()) break;
    preparation.add_file(path, open_source(storage, path));
  }
  return preparation.finish();
}

}  // namespace data
