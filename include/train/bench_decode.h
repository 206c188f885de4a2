// `atoll bench decode`: how fast a config's model writes on this machine.
#pragma once

#include <cstdint>
#include <string>

#include "train/run_config.h"

namespace train {

struct DecodeBenchOptions {
  int64_t prompt_tokens = 64;
  int64_t tokens = 256;   // Written after the prompt.
  int64_t sequences = 1;  // That write side by side.
  int64_t batch_rows = 256;
};
struct DecodeBenchReport {
  std::string device;
  std::string model;  // The config's name.
  int64_t parameters = 0;
  double prompt_tokens_per_second = 0;  // All sequences together, here and below.
  double tokens_per_second = 0;
  double token_seconds = 0;  // Median of the time from one token of a sequence to its next.
  int64_t cache_bytes = 0;   // Keys and values.
};
// With initial weights and the likeliest token each time. Throws bad_input when prompt and tokens
// do not fit the model's rows.
DecodeBenchReport bench_decode(const RunConfig& config, const DecodeBenchOptions& options);

}  // namespace train
