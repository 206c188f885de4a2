// What a client asks of /v1/completions, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "train/sampling.h"
#include "train/serve/text.h"

namespace train {

inline constexpr int64_t kPromptsMax = 256;
inline constexpr int64_t kStopsMax = 16;
inline constexpr int64_t kStopBytesMax = 1024;
inline constexpr int64_t kTopLogprobsMax = 20;

struct CompletionRequest {
  std::vector<std::vector<int32_t>> prompts;  // Each becomes a choice. None is empty.
  std::string model;                          // As asked for; repeated in the answer.
  int64_t tokens_max = 16;                    // Of each choice, beyond its prompt.
  SamplingOptions sampling;
  std::optional<uint64_t> seed;
  std::vector<std::string> stops;
  bool echo = false;
  std::optional<int64_t> logprobs;  // How many of the likeliest tokens are told at each place.
  bool stream = false;
};

// Why a request is refused, and by which of its fields (may be empty).
struct Refusal {
  std::string message, parameter;
};

struct RequestLimits {
  int64_t context = 0;     // Tokens of a prompt and what follows.
  int64_t vocabulary = 0;  // Of the model.
};

// The request, or what is wrong with it. Text prompts begin with the tokenizer's begin token, as
// documents did in training; ids are taken as they are.
std::optional<Refusal> read_completion_request(const std::string& body,
                                               const ServedTokenizer& tokenizer,
                                               const RequestLimits& limits,
                                               CompletionRequest& request);

// For the other endpoints. Throws a Refusal.
base::JsonValue parse_body(const std::string& body);
std::string read_text(const base::JsonValue& object, const char* key);
std::vector<int32_t> read_ids(const base::JsonValue& array, const char* key, int64_t vocabulary);
bool read_flag(const base::JsonValue& object, const char* key, bool otherwise);

}  // namespace train
