// One prompt on its way: what is asked, how far it is, and what came of it. No decoder and no
// network: it is told logits and says which token comes next.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "train/serve/completion_request.h"
#include "train/serve/text.h"

namespace train {

enum class Finish { kNone, kLength, kStop };

// A token of the answer, with what the model thought of it.
struct ToldToken {
  int32_t id = 0;
  int64_t text_offset = 0;   // Characters of the answer's text before it.
  bool has_logprob = false;  // The first of a prompt follows nothing.
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;  // Likeliest first.
};

class Generation {
 public:
  // `tokenizer` and `request` outlive the object; `index` of its prompts.
  Generation(const ServedTokenizer& tokenizer, const CompletionRequest& request, int64_t index,
             uint64_t seed);

  const std::vector<int32_t>& ids() const { return ids_; }  // The prompt, and what was chosen.
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t completion_tokens() const { return int64_t(ids_.size()) - prompt_tokens_; }
  // Logits are wanted after each token of the prompt, not only after its last.
  bool wants_prompt_logits() const { return request_.echo && request_.logprobs.has_value(); }

  // What follows the token at `position` of ids(). At the last one a token is chosen, if one more
  // is wanted. REQUIRES: logits are finite, !is_finished().
  void hear(int64_t position, std::span<const float> logits);

  bool is_finished() const { return finish_ != Finish::kNone; }
  Finish finish() const { return finish_; }
  // Of the answer, with the prompt if it is to be repeated. Grows by whole characters, and never by
  // what may turn out to begin a stop text; complete once it is finished.
  const std::string& text() const { return text_; }
  // Of the same tokens; those that are cut off by a stop text are not told. Only with logprobs.
  const std::vector<ToldToken>& told() const { return told_; }

 private:
  void tell(int32_t id, std::span<const float> logits);
  void take(int32_t id);
  void end(Finish finish);
  void release_text();

  const ServedTokenizer& tokenizer_;
  const CompletionRequest& request_;
  std::vector<int32_t> ids_;
  int64_t prompt_tokens_;
  base::Random random_;
  Finish finish_ = Finish::kNone;
  CharacterStream characters_;
  std::string text_;
  std::string pending_;  // Whole characters that may begin a stop text.
  std::vector<ToldToken> told_;
};

// The earliest of the stop texts in `text`; npos if there is none.
size_t find_stop(std::string_view text, const std::vector<std::string>& stops);
// How many bytes at the end of `text` may begin one.
size_t possible_stop_bytes(std::string_view text, const std::vector<std::string>& stops);

}  // namespace train
