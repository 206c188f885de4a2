#include "train/serve/completion_answer.h"

#include <set>

#include "base/json.h"

namespace train {
namespace {

void begin(base::JsonWriter& out, const AnswerHead& head) {
  out.begin_object()
      .field("id", head.id)
      .field("object", "text_completion")
      .field("created", head.created)
      .field("model", head.model);
}

// Equal names of different tokens: the likeliest counts. The token itself is among them.
void write_top(base::JsonWriter& out, const ServedTokenizer& tokenizer, const ToldToken& told) {
  if (!told.has_logprob) {
    out.null();
    return;
  }
  std::set<std::string> names;
  out.begin_object();
  const auto write = [&](int32_t id, double logprob) {
    const std::string name = tokenizer.name_of(id);
    if (names.insert(name).second) out.field(name, logprob);
  };
  for (const auto& [id, logprob] : told.top) write(id, logprob);
  write(told.id, told.logprob);
  out.end_object();
}

// Of the tokens from `first` on.
void write_logprobs(base::JsonWriter& out, const ServedTokenizer& tokenizer,
                    const Generation& generation, size_t first) {
  const std::span<const ToldToken> told = std::span(generation.told()).subspan(first);
  out.begin_object().key("tokens").begin_array();
  for (const ToldToken& one : told) out.value(tokenizer.name_of(one.id));
  out.end_array().key("token_logprobs").begin_array();
  for (const ToldToken& one : told) one.has_logprob ? out.value(one.logprob) : out.null();
  out.end_array().key("top_logprobs").begin_array();
  for (const ToldToken& one : told) write_top(out, tokenizer, one);
  out.end_array().key("text_offset").begin_array();
  for (const ToldToken& one : told) out.value(one.text_offset);
  out.end_array().end_object();
}

void write_choice(base::JsonWriter& out, const ServedRequest& request,
                  const ServedTokenizer& tokenizer, size_t choice, const Delivered& from) {
  const Generation& generation = *request.generations[choice];
  out.begin_object()
      .field("index", int64_t(choice))
      .field("text", std::string_view(generation.text()).substr(from.bytes))
      .key("logprobs");
  if (request.asked.logprobs) {
    write_logprobs(out, tokenizer, generation, from.tokens);
  } else {
    out.null();
  }
  out.key("finish_reason");
  if (generation.is_finished()) {
    out.value(generation.finish() == Finish::kStop ? "stop" : "length");
  } else {
    out.null();
  }
  out.end_object();
}

void write_usage(base::JsonWriter& out, const ServedRequest& request) {
  int64_t prompt = 0, completion = 0;
  for (const auto& generation : request.generations) {
    prompt += generation->prompt_tokens();
    completion += generation->completion_tokens();
  }
  out.key("usage")
      .begin_object()
      .field("prompt_tokens", prompt)
      .field("completion_tokens", completion)
      .field("total_tokens", prompt + completion)
      .end_object();
}

}  // namespace

std::string completion_answer(const AnswerHead& head, const ServedRequest& request,
                              const ServedTokenizer& tokenizer) {
  base::JsonWriter out;
  begin(out, head);
  out.key("choices").begin_array();
  for (size_t i = 0; i < request.generations.size(); ++i)
    write_choice(out, request, tokenizer, i, {});
  out.end_array();
  write_usage(out, request);
  out.end_object();
  return out.text();
}

std::string completion_events(const AnswerHead& head, const ServedRequest& request,
                              const ServedTokenizer& tokenizer, size_t choice,
                              Delivered& delivered) {
  const Generation& generation = *request.generations[choice];
  const bool has_text = generation.text().size() > delivered.bytes;
  const bool ends = generation.is_finished() && !delivered.is_over;
  if (!has_text && !ends) return {};
  base::JsonWriter out;
  begin(out, head);
  out.key("choices").begin_array();
  write_choice(out, request, tokenizer, choice, delivered);
  out.end_array().end_object();
  delivered = {generation.text().size(), generation.told().size(), generation.is_finished()};
  return "data: " + out.text() + "\n\n";
}

}  // namespace train
