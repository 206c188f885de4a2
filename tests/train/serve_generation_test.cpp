// A generation that is told logits by hand.
#include <cmath>

#include "support/catch.h"
#include "train/serve/generation.h"
#include "train/serve_fixture.h"

namespace {

using serve_test::greedy_request;
using serve_test::kEnd;
using serve_test::logits_for;
using serve_test::served_tokenizer;
using train::CompletionRequest;
using train::Finish;
using train::Generation;

// Lets the model say `says`, as far as it is asked.
void play(Generation& generation, const std::vector<int32_t>& says) {
  for (const int32_t id : says) {
    if (generation.is_finished()) return;
    generation.hear(int64_t(generation.ids().size()) - 1, logits_for(id));
  }
}

std::vector<int32_t> ids_of(std::string_view text) {
  return served_tokenizer().encode(text, false);
}

}  // namespace

TEST_CASE("serve: a completion ends at its length, its end token, or a stop text") {
  CompletionRequest request = greedy_request("ab", 3);
  Generation length(served_tokenizer(), request, 0, 1);
  play(length, ids_of("cdefg"));
  REQUIRE(length.finish() == Finish::kLength);
  REQUIRE(length.text() == "cde");
  REQUIRE(length.completion_tokens() == 3);

  Generation end(served_tokenizer(), request, 0, 1);
  play(end, {'c', kEnd, 'd'});
  REQUIRE(end.finish() == Finish::kStop);
  REQUIRE(end.text() == "c");
  REQUIRE(end.completion_tokens() == 2);

  request.tokens_max = 100;
  request.stops = {"xy", "yz!"};
  Generation stop(served_tokenizer(), request, 0, 1);
  play(stop, ids_of("ayz!b"));
  REQUIRE(stop.finish() == Finish::kStop);
  REQUIRE(stop.text() == "a");
}

TEST_CASE("serve: text that may begin a stop text is held back, and comes if it does not") {
  CompletionRequest request = greedy_request("p", 100);
  request.stops = {"stop"};
  Generation generation(served_tokenizer(), request, 0, 1);
  play(generation, ids_of("a sto"));
  REQUIRE(generation.text() == "a ");
  play(generation, ids_of("n"));
  REQUIRE(generation.text() == "a ston");
  play(generation, ids_of(" st"));
  play(generation, {kEnd});
  REQUIRE(generation.text() == "a ston st");
}

TEST_CASE("serve: stop texts in a text, and at its end") {
  REQUIRE(train::find_stop("abcabc", {"ca", "bc"}) == 1);
  REQUIRE(train::find_stop("abc", {}) == std::string::npos);
  REQUIRE(train::possible_stop_bytes("xaba", {"abab"}) == 3);
  REQUIRE(train::possible_stop_bytes("abab", {"abab"}) == 2);  // Whole ones are found otherwise.
  REQUIRE(train::possible_stop_bytes("x", {"y"}) == 0);
}

TEST_CASE("serve: echo with logprobs tells every token of the prompt") {
  CompletionRequest request = greedy_request("abc", 1);
  request.echo = true;
  request.logprobs = 1;
  Generation generation(served_tokenizer(), request, 0, 1);
  REQUIRE(generation.wants_prompt_logits());
  generation.hear(0, logits_for('b'));
  generation.hear(1, logits_for('x'));
  generation.hear(2, logits_for('d'));
  REQUIRE(generation.text() == "abcd");
  REQUIRE(generation.is_finished());
  const auto& told = generation.told();
  REQUIRE(told.size() == 4);
  REQUIRE_FALSE(told[0].has_logprob);
  REQUIRE(told[1].logprob == Approx(0).margin(1e-5));  // It was the likeliest.
  REQUIRE(told[1].top[0].first == 'b');
  REQUIRE(told[2].top[0].first == 'x');
  const double expected = double(logits_for('x')['c']) - train::log_sum_exp(logits_for('x'));
  REQUIRE(told[2].logprob == Approx(expected));
  for (int64_t i = 0; i < 4; ++i) REQUIRE(told[size_t(i)].text_offset == i);
}

TEST_CASE("serve: echo with logprobs and nothing to write, and nothing to do at all") {
  CompletionRequest request = greedy_request("ab", 0);
  request.echo = true;
  request.logprobs = 0;
  Generation generation(served_tokenizer(), request, 0, 1);
  generation.hear(0, logits_for('b'));
  REQUIRE_FALSE(generation.is_finished());
  generation.hear(1, logits_for('c'));
  REQUIRE(generation.is_finished());
  REQUIRE(generation.text() == "ab");
  REQUIRE(generation.told().size() == 2);
  REQUIRE(generation.told()[1].top.empty());

  request.logprobs.reset();
  const Generation done(served_tokenizer(), request, 0, 1);
  REQUIRE(done.is_finished());
  REQUIRE(done.text() == "ab");
  request.echo = false;
  REQUIRE(Generation(served_tokenizer(), request, 0, 1).text().empty());
}

// The harness cuts the last token off, so an end token must be among them.
TEST_CASE("serve: the end token is told, and what a stop text cuts off is not") {
  CompletionRequest request = greedy_request("a", 10);
  request.logprobs = 1;
  Generation end(served_tokenizer(), request, 0, 1);
  play(end, {'b', kEnd});
  REQUIRE(end.told().size() == 2);
  REQUIRE(end.told()[1].id == kEnd);
  REQUIRE(end.text() == "b");

  request.stops = {"yz"};
  Generation stop(served_tokenizer(), request, 0, 1);
  play(stop, ids_of("xyz"));
  REQUIRE(stop.text() == "x");
  REQUIRE(stop.told().size() == 1);
}

TEST_CASE("serve: ids beyond the tokenizer are not chosen, and characters come whole") {
  CompletionRequest request = greedy_request("a", 4);
  Generation beyond(served_tokenizer(), request, 0, 1);
  play(beyond, {299});
  REQUIRE(beyond.ids().back() == 0);  // The likeliest of those that are known.

  Generation parts(served_tokenizer(), request, 0, 1);
  play(parts, {0xe2, 0x82});
  REQUIRE(parts.text().empty());
  play(parts, {0xac});
  REQUIRE(parts.text() == "\u20ac");
  play(parts, {0xe2});
  REQUIRE(parts.is_finished());
  REQUIRE(parts.text() == "\u20ac\ufffd");
}

TEST_CASE("serve: a seed gives the same text, and each prompt its own") {
  CompletionRequest request = greedy_request("a", 8);
  request.prompts.push_back(request.prompts[0]);
  request.sampling.temperature = 2;
  const auto write = [&](int64_t index, uint64_t seed) {
    Generation generation(served_tokenizer(), request, index, seed);
    while (!generation.is_finished())
      generation.hear(int64_t(generation.ids().size()) - 1,
                      std::vector<float>(size_t(serve_test::kVocabulary), 0.0f));
    return generation.ids();
  };
  REQUIRE(write(0, 1) == write(0, 1));
  REQUIRE(write(0, 1) != write(0, 2));
  REQUIRE(write(0, 1) != write(1, 1));
}
