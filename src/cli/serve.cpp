// serve: a model over HTTP.
#include "train/serve.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"

namespace cli {
namespace {

struct ServeCommand {
  train::ServeOptions options;
  bool json = false;
};

void add_options(CLI::App& command, ServeCommand& state) {
  auto& options = state.options;
  command
      .add_option("--checkpoint", options.checkpoint, "A checkpoint's folder or a run directory")
      ->required();
  command.add_option("--tokenizer", options.tokenizer,
                     "bytes, or the path of a tokenizer.json, instead of the checkpoint's own");
  command
      .add_option("--address", options.address,
                  "Where to listen; anything but this machine's own address lets others in, and "
                  "there is no password")
      ->capture_default_str();
  command.add_option("--port", options.port, "0: one that is free")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command
      .add_option("--context", options.context,
                  "Tokens of a prompt and what follows, at most; 0: as the model's rows")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--sequences", options.sequences,
                  "Written side by side; memory for their keys and values is taken at the start")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command.add_option("--batch-rows", options.batch_rows, "Tokens computed together, at most")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  command
      .add_option("--queue", options.queue,
                  "Prompts that may wait; beyond it requests get status 503")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  command.add_option("--threads", options.threads, "CPU threads; 0: all")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--device", options.device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command.add_flag("--json", state.json, "Print where it listens as JSON");
}

void print_address(const std::string& url, bool json) {
  if (!json) return base::log_info("listening on {}", url);
  base::JsonWriter out;
  out.begin_object().field("event", "listening").field("url", url).end_object();
  std::cout << out.text() << std::endl;
}

}  // namespace

void add_serve(CLI::App& app, const WatchForStop& watch_for_stop) {
  auto* command = app.add_subcommand(
      "serve",
      "A trained model over HTTP, as OpenAI's completions API and lm-evaluation-harness "
      "ask for it");
  auto state = std::make_shared<ServeCommand>();
  add_options(*command, *state);
  command->footer(
      "Example:\n"
      "  atoll serve --checkpoint runs/atoll --port 8000\n"
      "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"Once\", \"max_tokens\": "
      "20}'\n"
      "SIGTERM and Ctrl-C end it.");
  command->callback([state, watch_for_stop] {
    const auto storage = base::make_disk_storage();
    train::serve_checkpoint(*storage, state->options, watch_for_stop(),
                            [&](const std::string& url) { print_address(url, state->json); });
  });
}

}  // namespace cli
