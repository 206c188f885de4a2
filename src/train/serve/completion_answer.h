// A request's answers as JSON, in OpenAI's form.
#pragma once

#include <cstdint>
#include <string>

#include "train/serve/scheduler.h"

namespace train {

// What all parts of one answer repeat.
struct AnswerHead {
  std::string id;  // "cmpl-..."
  std::string model;
  int64_t created = 0;  // Seconds since 1970.
};

// REQUIRES: request.is_done() without a failure.
std::string completion_answer(const AnswerHead& head, const ServedRequest& request,
                              const ServedTokenizer& tokenizer);

// What a client of a stream has of one choice.
struct Delivered {
  size_t bytes = 0;   // Of the text.
  size_t tokens = 0;  // Told.
  bool is_over = false;
};
// The events that bring it up to date; empty if it is.
std::string completion_events(const AnswerHead& head, const ServedRequest& request,
                              const ServedTokenizer& tokenizer, size_t choice,
                              Delivered& delivered);
inline constexpr const char* kLastEvent = "data: [DONE]\n\n";

}  // namespace train
