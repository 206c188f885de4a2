// What a trained model is good for: its validation loss and its text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace train {

struct EvaluateOptions {
  std::string checkpoint;  // A checkpoint's folder, or a run directory (then the newest).
  // Instead of the run's own datasets, seed and fraction, which the manifest has. Hold-out is by
  // content, so copies under other paths are as good; another seed or a larger fraction makes
  // documents count that were trained on.
  std::vector<std::string> data_prefixes;
  std::optional<double> validation_fraction;
  std::optional<int64_t> seed;
  int64_t rows = 256;  // Held-out ones, at most, spread over all of them.
  int64_t threads = 0;
  std::string device = "auto";
};
struct EvaluateReport {
  double loss = 0;  // Nats per token, cross-entropy alone.
  double perplexity = 0;
  double bits_per_token = 0;
  int64_t tokens = 0;
  int64_t step = 0;
};
EvaluateReport evaluate_checkpoint(base::Storage& storage, const EvaluateOptions& options);

struct LogitsOptions {
  std::string checkpoint;
  std::vector<int32_t> ids;  // One document, from its begin.
  int64_t threads = 0;
  std::string device = "auto";
};
// For each id how likely it comes next: to compare models with.
std::vector<float> logits_after(base::Storage& storage, const LogitsOptions& options);

struct GenerateOptions {
  std::string checkpoint;
  std::string prompt;
  std::string tokenizer;  // As data.tokenizer; empty: the checkpoint's.
  int64_t tokens = 200;
  double temperature = 0.8;  // 0: always the likeliest token.
  int64_t top_k = 40;        // 0: all.
  uint64_t seed = 0;
  int64_t threads = 0;
  std::string device = "auto";
};
// Calls `on_text` with each piece as it comes; stops at the end token.
void generate_text(base::Storage& storage, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text);

}  // namespace train
