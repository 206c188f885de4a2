// Logits by hand for the tests of serving, and the tokenizer of bytes as it is served.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer_record.h"
#include "train/serve/completion_request.h"
#include "train/serve/text.h"

namespace serve_test {

inline constexpr int64_t kVocabulary = 300;  // Of the model: more than the tokenizer's 258.
inline constexpr int32_t kBegin = 256, kEnd = 257;

inline const train::ServedTokenizer& served_tokenizer() {
  static const train::ServedTokenizer tokenizer(data::bytes_record());
  return tokenizer;
}

// `id` is by far the likeliest.
inline std::vector<float> logits_for(int32_t id) {
  std::vector<float> logits(size_t(kVocabulary), 0.0f);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = -float(i) / 1000;
  logits[size_t(id)] = 20;
  return logits;
}

inline train::CompletionRequest greedy_request(const std::string& prompt, int64_t tokens) {
  train::CompletionRequest request;
  request.prompts = {served_tokenizer().encode(prompt, false)};
  request.tokens_max = tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace serve_test
