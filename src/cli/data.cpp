// prepare: text to a token dataset.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "base/math.h"
#include "cli/commands.h"
#include "data/prepare.h"

namespace cli {
namespace {

constexpr size_t kFilesNamed = 20;

struct PrepareCommand {
  data::PrepareOptions options;
  std::string tokenizer = "bytes";
  bool json = false;
};

// In a shell it is hard to write a line's end: \n, \r, \t and \\ stand for what they do in C.
std::string unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    constexpr std::string_view kLetters = "nrt\\", kMeanings = "\n\r\t\\";
    const size_t known = text[i] == '\\' && i + 1 < text.size() ? kLetters.find(text[i + 1])
                                                                : std::string_view::npos;
    if (known == std::string_view::npos) {
      result += text[i];
    } else {
      result += kMeanings[known];
      ++i;
    }
  }
  return result;
}

void log_left_out(const std::vector<data::LeftOut>& some, size_t named, int64_t count,
                  const char* what) {
  for (size_t i = 0; i < std::min(named, some.size()); ++i)
    base::log_warning("left out: {}: {}", some[i].place, some[i].reason);
  if (count > int64_t(named)) base::log_warning("left out: {} {} in all", count, what);
}

void print_report(const PrepareCommand& command, const data::PrepareReport& report) {
  log_left_out(report.files, kFilesNamed, int64_t(report.files.size()), "files");
  log_left_out(report.first_bad_lines, report.first_bad_lines.size(), report.bad_lines,
               "bad lines");
  if (report.cut_texts > 0) {
    base::log_info("{} texts of more than {} bytes became several documents", report.cut_texts,
                   command.options.document_bytes_max);
  }
  base::log_info(
      "{}: {} documents, {} tokens from {:.1f} MiB of text; {} files and {} bad lines "
      "left out",
      command.options.output_prefix, report.documents, report.tokens,
      double(report.bytes) / double(base::kMiB), report.files.size(), report.bad_lines);
}

void write_left_out(base::JsonWriter& out, const char* key,
                    const std::vector<data::LeftOut>& left_out) {
  out.key(key).begin_array();
  for (const data::LeftOut& one : left_out)
    out.begin_object().field("place", one.place).field("reason", one.reason).end_object();
  out.end_array();
}

void print_json(const PrepareCommand& command, const data::PrepareReport& report) {
  base::JsonWriter out;
  out.begin_object()
      .field("output", command.options.output_prefix)
      .field("documents", report.documents)
      .field("tokens", report.tokens)
      .field("bytes", report.bytes)
      .field("cut_texts", report.cut_texts)
      .field("skipped_files", int64_t(report.files.size()))
      .field("bad_lines", report.bad_lines);
  write_left_out(out, "left_out", report.files);
  write_left_out(out, "first_bad_lines", report.first_bad_lines);
  out.end_object();
  std::cout << out.text() << std::endl;
}

void prepare(PrepareCommand& command, const StopRequested& stop_requested) {
  const auto storage = base::make_disk_storage();
  const auto tokenizer = data::make_tokenizer(*storage, command.tokenizer);
  command.options.separator = unescape(command.options.separator);
  int64_t reported_bytes = 0;
  const auto progress = [&](int64_t bytes) {
    if (bytes - reported_bytes < 64 * base::kMiB) return;
    reported_bytes = bytes;
    base::log_info("{} MiB read", bytes / base::kMiB);
  };
  const auto report =
      data::prepare(*storage, *tokenizer, command.options, progress, stop_requested);
  command.json ? print_json(command, report) : print_report(command, report);
}

}  // namespace

void add_prepare(CLI::App& app, const WatchForStop& watch_for_stop) {
  auto* command = app.add_subcommand(
      "prepare", "Turn text files into a token dataset (Megatron indexed format)");
  auto state = std::make_shared<PrepareCommand>();
  data::PrepareOptions& options = state->options;
  command
      ->add_option("--input", options.inputs,
                   "Text files, JSON files (.jsonl, .ndjson, .json), or folders")
      ->required();
  command->add_option("--output", options.output_prefix, "Prefix of the .bin and .idx files")
      ->required();
  command->add_option("--tokenizer", state->tokenizer, "bytes")->capture_default_str();
  command->add_option("--field", options.json_field, "The text's key in JSON objects")
      ->capture_default_str();
  command->add_option("--separator", options.separator,
                      "Stands between the documents of a text file; knows \\n, \\r, \\t and \\\\");
  command->add_flag("--json-as-text", options.json_is_text, "Take JSON files as they are");
  command->add_flag("--skip-bad-lines", options.skip_bad_lines,
                    "Leave out JSON that is broken or has no text, count it, and name the first");
  command
      ->add_option("--document-bytes", options.document_bytes_max,
                   "Longer texts become several documents")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, base::kGiB));
  command
      ->add_option("--max-bytes", options.input_bytes_max,
                   "Stop after so many bytes of text; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--json", state->json, "Print the report as JSON");
  command->callback([state, watch_for_stop] { prepare(*state, watch_for_stop()); });
}

}  // namespace cli
