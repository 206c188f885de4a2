#include "train/serve/generation.h"

#include <algorithm>

namespace train {
namespace {

std::vector<std::pair<int32_t, double>> likeliest(std::span<const float> logits, int64_t count,
                                                  double lse) {
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i);
  const auto end = ids.begin() + std::min<int64_t>(count, int64_t(ids.size()));
  std::ranges::partial_sort(ids, end, [&](int32_t a, int32_t b) {
    return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b;
  });
  std::vector<std::pair<int32_t, double>> top;
  for (auto id = ids.begin(); id != end; ++id)
    top.emplace_back(*id, double(logits[size_t(*id)]) - lse);
  return top;
}

}  // namespace

size_t find_stop(std::string_view text, const std::vector<std::string>& stops) {
  size_t first = std::string_view::npos;
  for (const std::string& stop : stops) first = std::min(first, text.find(stop));
  return first;
}

size_t possible_stop_bytes(std::string_view text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops) {
    for (size_t size = std::min(stop.size() - 1, text.size()); size > longest; --size) {
      if (text.ends_with(std::string_view(stop).substr(0, size))) longest = size;
    }
  }
  return longest;
}

Generation::Generation(const ServedTokenizer& tokenizer, const CompletionRequest& request,
                       int64_t index, uint64_t seed)
    : tokenizer_(tokenizer),
      request_(request),
      ids_(request.prompts[size_t(index)]),
      prompt_tokens_(int64_t(ids_.size())),
      random_(seed, uint64_t(index)) {
  if (request.echo) {
    // All but the first are told when the logits before them are there.
    if (request.logprobs) told_.push_back({.id = ids_[0]});
    if (!request.logprobs) {
      for (const int32_t id : ids_) text_ += characters_.push(tokenizer_.bytes_of(id));
    } else {
      text_ += characters_.push(tokenizer_.bytes_of(ids_[0]));
    }
  }
  if (request.tokens_max == 0 && !wants_prompt_logits()) end(Finish::kLength);
}

// What the model thought of a token whose place was predicted by `logits`.
void Generation::tell(int32_t id, std::span<const float> logits) {
  if (!request_.logprobs) return;
  const double lse = log_sum_exp(logits);
  told_.push_back({.id = id,
                   .text_offset = characters_.characters(),
                   .has_logprob = true,
                   .logprob = double(logits[size_t(id)]) - lse,
                   .top = likeliest(logits, *request_.logprobs, lse)});
}

void Generation::hear(int64_t position, std::span<const float> logits) {
  if (position + 1 < prompt_tokens_) {
    const int32_t id = ids_[size_t(position) + 1];
    tell(id, logits);
    text_ += characters_.push(tokenizer_.bytes_of(id));
    return;
  }
  if (completion_tokens() == request_.tokens_max) return end(Finish::kLength);
  const int32_t next =
      choose_token(logits.first(size_t(tokenizer_.vocabulary())), request_.sampling, random_);
  tell(next, logits);
  take(next);
}

void Generation::take(int32_t id) {
  ids_.push_back(id);
  if (id == tokenizer_.tokenizer().end_id()) return end(Finish::kStop);
  pending_ += characters_.push(tokenizer_.bytes_of(id));
  if (const size_t stop = find_stop(pending_, request_.stops); stop != std::string::npos) {
    pending_.resize(stop);
    const int64_t characters = count_characters(text_) + count_characters(pending_);
    std::erase_if(told_, [&](const ToldToken& told) { return told.text_offset >= characters; });
    return end(Finish::kStop);
  }
  if (completion_tokens() == request_.tokens_max) return end(Finish::kLength);
  release_text();
}

// Gives out what can be no part of a stop text any more.
void Generation::release_text() {
  const size_t held = possible_stop_bytes(pending_, request_.stops);
  text_.append(pending_, 0, pending_.size() - held);
  pending_.erase(0, pending_.size() - held);
}

void Generation::end(Finish finish) {
  finish_ = finish;
  if (finish == Finish::kLength) pending_ += characters_.flush();
  text_ += pending_;
  pending_.clear();
}

}  // namespace train
