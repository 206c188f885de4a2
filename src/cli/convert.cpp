// convert: checkpoints to and from the folders of Hugging Face's transformers.
#include "train/convert.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"

namespace cli {
namespace {

struct ConvertCommand {
  std::string source;
  std::vector<std::string> to, from;  // A format and a path.
  std::string dtype = "fp32";
  std::string which;
  double shard_gigabytes = 5;
  int64_t sequence_length = 0;
  bool json = false;
};

void require_format(const std::string& name) {
  if (name == "hf") return;
  throw base::bad_input(fmt::format("\"{}\" is no format that is known", name),
                        "there is hf: folders of Hugging Face's transformers");
}

double gigabytes(int64_t bytes) {
  return double(bytes) / 1e9;
}

checkpoint::ConversionProgress progress_of(ProgressBar& bar, const StopRequested& stop_requested) {
  return [&bar, stop_requested](int64_t done, int64_t total) {
    if (bar.is_shown()) bar.show(done, total, "");
    if (stop_requested())
      throw base::resource_lost("the conversion was stopped: nothing was written",
                                "start it again: it begins from the beginning");
  };
}

void export_model(const ConvertCommand& command, const StopRequested& stop_requested) {
  require_format(command.to[0]);
  const auto storage = base::make_disk_storage();
  train::ExportReport report;
  {
    ProgressBar bar;
    report = train::export_checkpoint(*storage,
                                      {.checkpoint = command.source,
                                       .folder = command.to[1],
                                       .which = command.which,
                                       .numbers = checkpoint::parse_number_format(command.dtype),
                                       .shard_bytes_max = int64_t(command.shard_gigabytes * 1e9)},
                                      progress_of(bar, stop_requested));
  }
  if (!command.json) {
    base::log_info("{}: step {}, {} parameters, {} {}{}, {:.3f} GB in {} file{} of tensors",
                   command.to[1], report.step, report.which, report.files.parameters, command.dtype,
                   report.files.is_tied ? " (tied)" : "", gigabytes(report.files.bytes),
                   report.files.shards, report.files.shards == 1 ? "" : "s");
    if (report.tokenizer.empty())
      base::log_warning("the checkpoint has no tokenizer: there is none in the folder");
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("folder", command.to[1])
      .field("step", report.step)
      .field("which", report.which)
      .field("parameters", report.files.parameters)
      .field("bytes", report.files.bytes)
      .field("shards", report.files.shards)
      .field("tied", report.files.is_tied)
      .field("tokenizer", report.tokenizer)
      .end_object();
  std::cout << out.text() << std::endl;
}

void print_import(const ConvertCommand& command, const train::ImportReport& report) {
  base::log_info("{}: {} parameters from {}, {:.3f} GB", command.from[1], report.parameters,
                 fmt::join(report.number_formats, ", "), gigabytes(report.bytes));
  if (report.is_tied)
    base::log_info("the head was the embedding; training from here on takes each by itself");
  if (report.sequence_length != report.sequence_length_max) {
    base::log_info("rows of {} tokens; the model was made for {} (--sequence-length)",
                   report.sequence_length, report.sequence_length_max);
  }
  if (!report.tokenizer_problem.empty()) base::log_warning("{}", report.tokenizer_problem);
}

void import_model(const ConvertCommand& command, const StopRequested& stop_requested) {
  require_format(command.from[0]);
  const auto storage = base::make_disk_storage();
  train::ImportReport report;
  {
    ProgressBar bar;
    report = train::import_model(*storage,
                                 {.folder = command.source,
                                  .checkpoint = command.from[1],
                                  .sequence_length = command.sequence_length},
                                 progress_of(bar, stop_requested));
  }
  if (!command.json) return print_import(command, report);
  base::JsonWriter out;
  out.begin_object().field("checkpoint", command.from[1]).field("parameters", report.parameters);
  out.key("dtypes").begin_array();
  for (const std::string& format : report.number_formats) out.value(format);
  out.end_array()
      .field("bytes", report.bytes)
      .field("tied", report.is_tied)
      .field("sequence_length", report.sequence_length)
      .field("sequence_length_max", report.sequence_length_max)
      .field("tokenizer", report.tokenizer)
      .field("tokenizer_problem", report.tokenizer_problem)
      .end_object();
  std::cout << out.text() << std::endl;
}

}  // namespace

void add_convert(CLI::App& app, const WatchForStop& watch_for_stop) {
  auto* command = app.add_subcommand("convert",
                                     "Checkpoints to and from Hugging Face's transformers\n"
                                     "  atoll convert runs/atoll --to hf DIR --dtype bf16\n"
                                     "  atoll convert DIR --from hf CHECKPOINT");
  auto state = std::make_shared<ConvertCommand>();
  command
      ->add_option("SOURCE", state->source,
                   "With --to a checkpoint's folder or a run directory, with --from a folder of "
                   "transformers")
      ->required();
  auto* to = command->add_option("--to", state->to, "hf and the folder to write")->expected(2);
  auto* from = command->add_option("--from", state->from, "hf and the checkpoint to write")
                   ->expected(2)
                   ->excludes(to);
  command->add_option("--dtype", state->dtype, "With --to: how numbers are written")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->needs(to);
  command
      ->add_option("--which", state->which,
                   "With --to: what the rounds agreed on (outer, if there is that), or this node's "
                   "own parameters (inner)")
      ->check(CLI::IsMember({"outer", "inner"}))
      ->needs(to);
  command
      ->add_option("--shard-gigabytes", state->shard_gigabytes,
                   "With --to: tensors in one file, at most")
      ->capture_default_str()
      ->check(CLI::Range(1e-6, 1e6))
      ->needs(to);
  command
      ->add_option("--sequence-length", state->sequence_length,
                   "With --from: tokens of a row; by default what the model was made for, but at "
                   "most 8192")
      ->check(CLI::Range(1, 1 << 24))
      ->needs(from);
  command->add_flag("--json", state->json, "Print the report as JSON");
  command->callback([state, watch_for_stop] {
    const StopRequested stop_requested = watch_for_stop();
    if (!state->to.empty()) return export_model(*state, stop_requested);
    if (!state->from.empty()) return import_model(*state, stop_requested);
    throw base::bad_input("convert: neither --to nor --from is given",
                          "write --to hf DIR or --from hf CHECKPOINT");
  });
}

}  // namespace cli
