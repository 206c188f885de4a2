// prepare: text to a token dataset.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "base/math.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "data/prepare.h"

namespace cli {
namespace {

constexpr size_t kFilesNamed = 20;

struct PrepareCommand {
  data::PrepareOptions options;
  std::string tokenizer = "bytes";
  data::TokenizerOptions tokenizer_options;
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

double megabytes_per_second(const data::PrepareReport& report, double seconds) {
  return seconds > 0 ? double(report.bytes) / 1e6 / seconds : 0;
}

void print_report(const PrepareCommand& command, const data::PrepareReport& report,
                  double seconds) {
  log_left_out(report.files, kFilesNamed, int64_t(report.files.size()), "files");
  log_left_out(report.first_bad_lines, report.first_bad_lines.size(), report.bad_lines,
               "bad lines");
  if (report.cut_texts > 0) {
    base::log_info("{} texts of more than {} bytes became several documents", report.cut_texts,
                   command.options.document_bytes_max);
  }
  base::log_info(
      "{}: {} documents, {} tokens from {:.1f} MiB of text in {:.1f} s ({:.1f} MB/s); {} files and "
      "{} bad lines left out",
      command.options.output_prefix, report.documents, report.tokens,
      double(report.bytes) / double(base::kMiB), seconds, megabytes_per_second(report, seconds),
      report.files.size(), report.bad_lines);
}

void write_left_out(base::JsonWriter& out, const char* key,
                    const std::vector<data::LeftOut>& left_out) {
  out.key(key).begin_array();
  for (const data::LeftOut& one : left_out)
    out.begin_object().field("place", one.place).field("reason", one.reason).end_object();
  out.end_array();
}

void print_json(const PrepareCommand& command, const data::PrepareReport& report, double seconds) {
  base::JsonWriter out;
  out.begin_object()
      .field("output", command.options.output_prefix)
      .field("cut_texts", report.cut_texts)
      .field("skipped_files", int64_t(report.files.size()));
  write_left_out(out, "left_out", report.files);
  write_left_out(out, "first_skipped_lines", report.first_bad_lines);
  out.field("documents", report.documents)
      .field("tokens", report.tokens)
      .field("bytes", report.bytes)
      .field("seconds", seconds)
      .field("megabytes_per_second", megabytes_per_second(report, seconds))
      .field("skipped_lines", report.bad_lines)
      .end_object();
  std::cout << out.text() << std::endl;
}

void prepare(PrepareCommand& command, const StopRequested& stop_requested) {
  const auto storage = base::make_disk_storage();
  const auto tokenizer =
      data::make_tokenizer(*storage, command.tokenizer, command.tokenizer_options);
  command.options.separator = unescape(command.options.separator);
  const auto begin = std::chrono::steady_clock::now();
  data::PrepareReport report;
  {
    ProgressBar bar;
    int64_t logged_bytes = 0;
    const auto progress = [&](const data::PrepareProgress& now) {
      if (bar.is_shown())
        return bar.show(now.input_bytes, now.input_bytes_total,
                        fmt::format("{:.2f} M tokens", double(now.tokens) / 1e6));
      if (now.text_bytes - logged_bytes < 64 * base::kMiB) return;
      logged_bytes = now.text_bytes;
      base::log_info("{} MiB read", now.text_bytes / base::kMiB);
    };
    report = data::prepare(*storage, *tokenizer, command.options, progress, stop_requested);
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  command.json ? print_json(command, report, seconds) : print_report(command, report, seconds);
}

}  // namespace

void add_prepare(CLI::App& app, const WatchForStop& watch_for_stop) {
  auto* command = app.add_subcommand(
      "prepare", "Turn text files into a token dataset (Megatron indexed format)");
  auto state = std::make_shared<PrepareCommand>();
  data::PrepareOptions& options = state->options;
  command
      ->add_option("--input", options.inputs,
                   "Text files, JSON files (.jsonl, .ndjson, .json), both also as .gz and .zst, or "
                   "folders")
      ->required();
  command->add_option("--output", options.output_prefix, "Prefix of the .bin and .idx files")
      ->required();
  command
      ->add_option("--tokenizer", state->tokenizer,
                   "bytes, or the path of a tokenizer.json with byte-level BPE")
      ->capture_default_str();
  command->add_option("--begin", state->tokenizer_options.begin_token,
                      "The token before each document, or none; else the tokenizer's own");
  command->add_option("--end", state->tokenizer_options.end_token,
                      "The token after each document; else the tokenizer's own");
  command->add_option("--field", options.json_field, "The text's key in JSON objects")
      ->capture_default_str();
  command->add_option("--separator", options.separator,
                      "Stands between the documents of a text file; knows \\n, \\r, \\t and \\\\");
  command->add_flag("--json-as-text", options.json_is_text, "Take JSON files as they are");
  command->add_flag("--skip-bad-lines", options.skip_bad_lines,
                    "Leave out JSON that is broken or has no text, and what of a packed file is "
                    "damaged; count it, and name the first");
  command
      ->add_option("--document-bytes", options.document_bytes_max,
                   "Longer texts become several documents")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, base::kGiB));
  command
      ->add_option("--max-bytes", options.input_bytes_max,
                   "Stop after so many bytes of text; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--threads", options.threads,
                   "Threads; 0: one for each processor. The result is the same with any number")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--json", state->json, "Print the report as JSON");
  command->callback([state, watch_for_stop] { prepare(*state, watch_for_stop()); });
}

}  // namespace cli
