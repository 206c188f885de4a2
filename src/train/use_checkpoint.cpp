#include "train/use_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

#include "base/log.h"
#include "data/tokenizer_record.h"
#include "train/engine.h"
#include "train/node_checkpoint.h"
#include "train/open_checkpoint.h"
#include "train/run_data.h"

namespace train {
namespace {

backend::Backend one_backend(const std::string& device, int64_t threads) {
  auto backends = choose_backends({.device = device, .ranks = 1, .threads = threads});
  backends.front().device->enter_thread();
  return std::move(backends.front());
}

// Numbers that are no numbers have no order, and what is chosen among infinities means nothing.
void require_finite(std::span<const float> logits, int64_t step) {
  if (std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) return;
  throw base::bad_input(
      fmt::format("the model of step {} says nothing: its logits are not finite", step),
      "its training diverged; name an older checkpoint");
}

struct Candidate {
  float logit;
  int32_t token;
};

// A token drawn from softmax(logits / temperature) over the top_k likeliest.
int32_t choose_token(std::span<const float> logits, const GenerateOptions& options,
                     base::Random& random) {
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates[i] = {logits[i], int32_t(i)};
  std::ranges::sort(candidates, [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  });
  if (options.temperature <= 0) return candidates.front().token;
  if (options.top_k > 0) candidates.resize(std::min(candidates.size(), size_t(options.top_k)));
  std::vector<double> cumulative;
  double total = 0;
  for (const Candidate& candidate : candidates)
    cumulative.push_back(total +=
                         std::exp((double(candidate.logit) - double(candidates.front().logit)) /
                                  options.temperature));
  const auto at = std::ranges::lower_bound(cumulative, random.uniform() * total);
  return candidates[std::min(size_t(at - cumulative.begin()), candidates.size() - 1)].token;
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

std::unique_ptr<data::Tokenizer> tokenizer_for(const checkpoint::Reader& reader,
                                               const GenerateOptions& options,
                                               const model::ModelConfig& model,
                                               base::Storage& storage) {
  std::unique_ptr<data::Tokenizer> tokenizer;
  if (!options.tokenizer.empty()) {
    tokenizer = data::make_tokenizer(storage, options.tokenizer);
  } else if (const auto& record = reader.manifest().tokenizer; record.is_whole()) {
    tokenizer = data::make_tokenizer(record, "tokenizer.json of the checkpoint");
  } else {
    throw base::bad_input(
        fmt::format("the checkpoint does not say how text becomes tokens (its tokenizer is {})",
                    record.name.empty() ? "not known" : record.name),
        "name it with --tokenizer: bytes, or the path of a tokenizer.json");
  }
  if (tokenizer->vocabulary() <= model.vocabulary) return tokenizer;
  throw base::bad_input(fmt::format("the tokenizer {} has {} ids, but the model knows {}",
                                    tokenizer->name(), tokenizer->vocabulary(), model.vocabulary),
                        "it is another one than the model was trained with");
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
  backend::Backend backend = one_backend(options.device, options.threads);
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
  backend::Backend backend = one_backend(options.device, options.threads);
  Engine engine(backend, with_rows_of(config, int64_t(options.ids.size())), {.rows = 1});
  load_trained_parameters(*reader, engine.parameters);
  std::vector<float> logits(size_t(config.vocabulary));
  engine.transformer.next_logits(options.ids, logits);
  return logits;
}

void generate_text(base::Storage& storage, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text) {
  const auto reader = open_checkpoint(storage, options.checkpoint);
  const model::ModelConfig whole = model_of(*reader);
  const auto tokenizer = tokenizer_for(*reader, options, whole, storage);
  std::vector<int32_t> tokens = prompt_ids(*tokenizer, options.prompt);
  const model::ModelConfig config = with_rows_of(whole, int64_t(tokens.size()) + options.tokens);
  backend::Backend backend = one_backend(options.device, options.threads);
  Engine engine(backend, config, {.rows = 1});
  load_trained_parameters(*reader, engine.parameters);

  std::vector<float> logits(size_t(config.vocabulary));
  base::Random random(options.seed);
  for (int64_t i = 0; i < options.tokens; ++i) {
    // The window slides once it is full.
    const size_t window = std::min(tokens.size(), size_t(config.sequence_length));
    engine.transformer.next_logits(std::span(tokens).last(window), logits);
    const std::span<const float> known = std::span(logits).first(size_t(tokenizer->vocabulary()));
    require_finite(known, reader->manifest().step);
    const int32_t next = choose_token(known, options, random);
    if (next == tokenizer->end_id()) return;
    tokens.push_back(next);
    on_text(tokenizer->decode({next}));
  }
}

}  // namespace train
