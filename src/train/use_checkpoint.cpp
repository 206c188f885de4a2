#include "train/use_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

#include "base/log.h"
#include "train/decoding_engine.h"
#include "train/engine.h"
#include "train/node_checkpoint.h"
#include "train/open_checkpoint.h"
#include "train/run_data.h"
#include "train/sampling.h"

namespace train {
namespace {

// Numbers that are no numbers have no order, and what is chosen among infinities means nothing.
void require_finite(std::span<const float> logits, int64_t step) {
  if (std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) return;
  throw base::bad_input(
      fmt::format("the model of step {} says nothing: its logits are not finite", step),
      "its training diverged; name an older checkpoint");
}

void warn_of_trained_documents(const RunConfig& run, const EvaluateOptions& options) {
  const double fraction = options.validation_fraction.value_or(0);
  if (options.seed.value_or(run.seed) == run.seed && fraction <= run.data.validation_fraction)
    return;
  base::log_warning(
      "the run held out other documents (seed {}, validation fraction {}): some that it was "
      "trained "
      "on may count",
      run.seed, run.data.validation_fraction);
}

// The run's seed and data, as far as `options` has nothing else, for its model.
RunConfig data_of(const checkpoint::Reader& reader, const model::ModelConfig& model,
                  const EvaluateOptions& options, base::Storage& storage) {
  RunConfig run;
  const std::string& text = reader.manifest().data_config;
  if (!text.empty()) {
    read_data_json(text, "manifest.json: data_config", run);
    warn_of_trained_documents(run, options);
  } else if (options.data_prefixes.empty()) {
    throw base::bad_input(
        "the checkpoint does not say on what data it was trained",
        "it was imported, or an older version wrote it: name datasets with --data");
  } else {
    base::log_warning(
        "the checkpoint does not say which documents it was not trained on: others may count");
  }
  run.model = model;
  if (options.seed) run.seed = *options.seed;
  if (options.validation_fraction) run.data.validation_fraction = *options.validation_fraction;
  if (!options.data_prefixes.empty()) {
    run.data.sources.clear();
    for (const std::string& prefix : options.data_prefixes)
      run.data.sources.push_back({.prefix = prefix});
    return run;
  }
  for (const DataSource& source : run.data.sources) {
    if (source.weight == 0 || storage.exists(source.prefix + ".idx")) continue;
    throw base::bad_input(
        fmt::format("the run's dataset {} is not here", source.prefix),
        "name it with --data PREFIX; a copy under another path has the same documents held out");
  }
  return run;
}

// Whole rows are computed: none longer than needed. Positions count from the row's start, so that a
// shorter one says the same.
model::ModelConfig with_rows_of(model::ModelConfig config, int64_t tokens) {
  config.sequence_length = std::min(config.sequence_length, tokens);
  return config;
}

std::vector<int32_t> prompt_ids(const data::Tokenizer& tokenizer, const std::string& prompt) {
  std::vector<int32_t> ids;
  if (tokenizer.begin_id() != data::Tokenizer::kNoId) ids.push_back(tokenizer.begin_id());
  tokenizer.append_ids(prompt, ids);
  if (ids.empty())
    throw base::bad_input("there is nothing to go on from: this tokenizer has no begin token",
                          "give a --prompt");
  return ids;
}

}  // namespace

EvaluateReport evaluate_checkpoint(base::Storage& storage, const EvaluateOptions& options) {
  const auto reader = open_checkpoint(storage, options.checkpoint);
  const model::ModelConfig config = model_of(*reader);
  RunConfig run = data_of(*reader, config, options, storage);
  run.data.tokenizer = kTokenizerAuto;  // What the run's config named need not be here.
  const RunData data =
      open_data(run, storage, known_tokenizer(reader->manifest(), "the checkpoint"));
  constexpr int64_t kRowsAtOnce = 4;
  backend::Backend backend = make_one_backend(options.device, options.threads);
  Engine engine(backend, config, {.rows = kRowsAtOnce});
  load_trained_parameters(*reader, engine.parameters);
  const Validation validation = mean_of(validate(engine, *data.sampler, kRowsAtOnce, options.rows));
  return {.loss = validation.loss,
          .perplexity = std::exp(validation.loss),
          .bits_per_token = validation.loss / std::log(2.0),
          .tokens = validation.tokens,
          .step = reader->manifest().step};
}

std::vector<float> logits_after(base::Storage& storage, const LogitsOptions& options) {
  const auto reader = open_checkpoint(storage, options.checkpoint);
  const model::ModelConfig config = model_of(*reader);
  if (options.ids.empty() || int64_t(options.ids.size()) > config.sequence_length) {
    throw base::bad_input(fmt::format("{} ids, but the model takes 1 to {}", options.ids.size(),
                                      config.sequence_length));
  }
  backend::Backend backend = make_one_backend(options.device, options.threads);
  Engine engine(backend, with_rows_of(config, int64_t(options.ids.size())), {.rows = 1});
  load_trained_parameters(*reader, engine.parameters);
  std::vector<float> logits(size_t(config.vocabulary));
  engine.transformer.next_logits(options.ids, logits);
  return logits;
}

void generate_text(base::Storage& storage, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text) {
  const auto reader = open_checkpoint(storage, options.checkpoint);
  const model::ModelConfig config = model_of(*reader);
  const auto tokenizer = tokenizer_for(storage, *reader, options.tokenizer, config);
  std::vector<int32_t> tokens = prompt_ids(*tokenizer, options.prompt);
  const int64_t wanted = int64_t(tokens.size()) + options.tokens;
  const int64_t context = std::min(config.sequence_length, wanted);
  backend::Backend backend = make_one_backend(options.device, options.threads);
  DecodingEngine engine(backend, *reader, config, {.context = context});

  const SamplingOptions sampling{.temperature = options.temperature, .top_k = options.top_k};
  base::Random random(options.seed);
  int32_t next = data::Tokenizer::kNoId;
  const auto choose = [&](int64_t, int64_t, std::span<const float> logits) {
    const auto known = logits.first(size_t(tokenizer->vocabulary()));
    require_finite(known, reader->manifest().step);
    next = choose_token(known, sampling, random);
  };
  int64_t fresh = int64_t(tokens.size());  // So many of the last are not in the decoder.
  for (int64_t i = 0; i < options.tokens; ++i) {
    // The window slides once it is full: every position then changes, and all are computed again.
    if (engine.decoder.length(0) + fresh > context) {
      engine.decoder.truncate(0, 0);
      fresh = std::min(context, int64_t(tokens.size()));
    }
    const model::Decoder::Piece piece{.sequence = 0,
                                      .tokens = std::span(tokens).last(size_t(fresh))};
    engine.decoder.append({&piece, 1}, choose);
    if (next == tokenizer->end_id()) return;
    tokens.push_back(next);
    fresh = 1;
    on_text(tokenizer->decode({next}));
  }
}

}  // namespace train
