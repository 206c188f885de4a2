// evaluate and generate: what a trained model is good for.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "cli/commands.h"
#include "train/use_checkpoint.h"

namespace cli {

void add_evaluate(CLI::App& app) {
  auto* command = app.add_subcommand("evaluate", "Validation loss of a checkpoint");
  struct Command {
    train::EvaluateOptions options;
    bool json = false;
  };
  auto state = std::make_shared<Command>();
  auto& options = state->options;
  command
      ->add_option("--checkpoint", options.checkpoint, "A checkpoint's folder or a run directory")
      ->required();
  command->add_option("--data", options.data_prefixes,
                      "Prefixes of datasets, instead of those of the run");
  command
      ->add_option("--validation-fraction", options.validation_fraction,
                   "Share of the documents held out, instead of the run's")
      ->check(CLI::Range(1e-9, 1.0));
  command->add_option("--seed", options.seed, "Of the hold-out, instead of the run's")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--rows", options.rows, "Held-out rows, at most, spread over all of them")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--threads", options.threads, "CPU threads; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--device", options.device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_flag("--json", state->json, "Print the report as JSON");
  command->callback([state] {
    const auto storage = base::make_disk_storage();
    const auto report = train::evaluate_checkpoint(*storage, state->options);
    if (!state->json) {
      std::cout << fmt::format(
          "step {}: loss {:.4f} nats, perplexity {:.3f}, {:.3f} bits per token, over {} tokens\n",
          report.step, report.loss, report.perplexity, report.bits_per_token, report.tokens);
      return;
    }
    base::JsonWriter out;
    out.begin_object()
        .field("step", report.step)
        .field("loss", report.loss)
        .field("perplexity", report.perplexity)
        .field("bits_per_token", report.bits_per_token)
        .field("tokens", report.tokens)
        .end_object();
    std::cout << out.text() << std::endl;
  });
}

void add_generate(CLI::App& app) {
  auto* command = app.add_subcommand("generate", "Let a trained model write");
  struct Command {
    train::GenerateOptions options;
    bool json = false;
  };
  auto state = std::make_shared<Command>();
  auto& options = state->options;
  command
      ->add_option("--checkpoint", options.checkpoint, "A checkpoint's folder or a run directory")
      ->required();
  command->add_option("--prompt", options.prompt, "Text to go on from");
  command->add_option("--tokenizer", options.tokenizer,
                      "bytes, or the path of a tokenizer.json, instead of the checkpoint's own");
  command->add_option("--tokens", options.tokens, "Tokens to write, at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", options.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--top-k", options.top_k, "Choose among so many; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", options.seed, "The same seed writes the same text")
      ->capture_default_str();
  command->add_option("--threads", options.threads, "CPU threads; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--device", options.device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_flag("--json", state->json, "Print prompt and text as JSON");
  command->callback([state] {
    const auto storage = base::make_disk_storage();
    std::string text;
    if (!state->json) std::cout << state->options.prompt;
    train::generate_text(*storage, state->options, [&](std::string_view piece) {
      text += piece;
      if (!state->json) std::cout << piece << std::flush;
    });
    if (state->json) {
      base::JsonWriter out;
      out.begin_object().field("prompt", state->options.prompt).field("text", text).end_object();
      std::cout << out.text();
    }
    std::cout << std::endl;
  });
}

}  // namespace cli
