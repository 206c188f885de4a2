// What clients ask: all forms of a prompt, and everything that can be wrong.
#include "support/catch.h"
#include "train/serve_fixture.h"

namespace {

using train::CompletionRequest;

constexpr train::RequestLimits kLimits{.context = 20, .vocabulary = serve_test::kVocabulary};

CompletionRequest read(const std::string& body) {
  CompletionRequest request;
  const auto refusal =
      read_completion_request(body, serve_test::served_tokenizer(), kLimits, request);
  INFO((refusal ? refusal->message : ""));
  REQUIRE_FALSE(refusal);
  return request;
}

// The parameter that is blamed.
std::string refused(const std::string& body) {
  CompletionRequest request;
  const auto refusal =
      read_completion_request(body, serve_test::served_tokenizer(), kLimits, request);
  INFO(body.substr(0, 200));
  REQUIRE(refusal);
  REQUIRE_FALSE(refusal->message.empty());
  return refusal->parameter;
}

std::string with_prompt(const std::string& rest) {
  return R"({"prompt": "ab", )" + rest + "}";
}

}  // namespace

TEST_CASE("serve: a prompt is a text, texts, ids, or lists of ids") {
  using Prompts = std::vector<std::vector<int32_t>>;
  REQUIRE(read(R"({"prompt": "ab"})").prompts == Prompts{{256, 'a', 'b'}});
  REQUIRE(read(R"({"prompt": ["a", "b"]})").prompts == Prompts{{256, 'a'}, {256, 'b'}});
  REQUIRE(read(R"({"prompt": [5, 299]})").prompts == Prompts{{5, 299}});
  REQUIRE(read(R"({"prompt": [[5], [6, 7]]})").prompts == Prompts{{5}, {6, 7}});
  REQUIRE(read(R"({"prompt": ""})").prompts == Prompts{{256}});
}

TEST_CASE("serve: what is not said is as OpenAI has it") {
  const CompletionRequest request = read(R"({"prompt": "ab", "logprobs": null, "stop": null})");
  REQUIRE(request.tokens_max == 16);
  REQUIRE(request.sampling.temperature == 1);
  REQUIRE(request.sampling.top_p == 1);
  REQUIRE_FALSE(request.logprobs);
  REQUIRE_FALSE(request.seed);
  REQUIRE_FALSE(request.echo);
  REQUIRE(request.stops.empty());
}

TEST_CASE("serve: what is said counts") {
  const CompletionRequest request = read(
      R"({"prompt": "ab", "model": "m", "max_tokens": 3, "temperature": 0, "top_p": 0.5, "seed": -4,
          "stop": ["x", "yz"], "echo": true, "logprobs": 2, "n": 1, "user": "me", "top_k": -1})");
  REQUIRE(request.model == "m");
  REQUIRE(request.tokens_max == 3);
  REQUIRE(request.sampling.temperature == 0);
  REQUIRE(request.sampling.top_p == 0.5);
  REQUIRE(request.seed == uint64_t(int64_t{-4}));
  REQUIRE(request.stops == std::vector<std::string>{"x", "yz"});
  REQUIRE(request.echo);
  REQUIRE(request.logprobs == 2);
  REQUIRE(read(with_prompt(R"("stop": "x")")).stops == std::vector<std::string>{"x"});
}

TEST_CASE("serve: the context holds prompt and completion") {
  const std::string full = R"({"prompt": ")" + std::string(19, 'a') + "\"";  // 20 with the begin.
  REQUIRE(read(full + "}").tokens_max == 0);
  REQUIRE(read(full + R"(, "max_tokens": 0})").tokens_max == 0);
  REQUIRE(refused(full + R"(, "max_tokens": 1})") == "max_tokens");
  REQUIRE(refused(R"({"prompt": ")" + std::string(20, 'a') + "\"}") == "prompt");
  REQUIRE(read(R"({"prompt": ")" + std::string(15, 'a') + "\"}").tokens_max == 4);
}

TEST_CASE("serve: bodies that are no request") {
  for (const char* body : {"", "{", "[]", "7", "null", "\"x\"", "{\"prompt\": \"\xff\"}",
                           R"({"prompt": "a", "prompt": "b"})", "{\"prompt\": \"a\"} x"})
    REQUIRE(refused(body).empty());
  REQUIRE(refused(R"({"prompt": )" + std::string(100'000, '[')).empty());
}

TEST_CASE("serve: prompts that are none") {
  for (const char* body :
       {"{}", R"({"prompt": null})", R"({"prompt": 5})", R"({"prompt": {}})", R"({"prompt": []})",
        R"({"prompt": [[]]})", R"({"prompt": [1, "a"]})", R"({"prompt": ["a", 1]})",
        R"({"prompt": [300]})", R"({"prompt": [-1]})", R"({"prompt": [1.5]})",
        R"({"prompt": [99999999999999999999]})", R"({"prompt": [true]})", R"({"prompt": [[[1]]]})",
        R"({"prompt": [null]})"}) {
    REQUIRE(refused(body) == "prompt");
  }
  std::string many = R"({"prompt": ["a")";
  for (int i = 0; i < train::kPromptsMax; ++i) many += R"(, "a")";
  REQUIRE(refused(many + "]}") == "prompt");
}

TEST_CASE("serve: fields beyond their limits, of wrong types, and not supported") {
  const std::pair<const char*, const char*> wrong[] = {
      {"temperature", R"("temperature": -0.1)"},
      {"temperature", R"("temperature": 2.1)"},
      {"temperature", R"("temperature": "hot")"},
      {"top_p", R"("top_p": 1.1)"},
      {"top_p", R"("top_p": [])"},
      {"top_k", R"("top_k": -2)"},
      {"max_tokens", R"("max_tokens": -1)"},
      {"max_tokens", R"("max_tokens": 1000000000000)"},
      {"max_tokens", R"("max_tokens": 1.5)"},
      {"max_tokens", R"("max_tokens": "5")"},
      {"seed", R"("seed": 1.5)"},
      {"seed", R"("seed": 99999999999999999999)"},
      {"stop", R"("stop": 5)"},
      {"stop", R"("stop": [5])"},
      {"stop", R"("stop": "")"},
      {"stop", R"("stop": ["a", ""])"},
      {"echo", R"("echo": 1)"},
      {"logprobs", R"("logprobs": 21)"},
      {"logprobs", R"("logprobs": -1)"},
      {"logprobs", R"("logprobs": true)"},
      {"n", R"("n": 2)"},
      {"best_of", R"("best_of": 3)"},
      {"suffix", R"("suffix": "x")"},
      {"logit_bias", R"("logit_bias": {"5": 1})"},
      {"presence_penalty", R"("presence_penalty": 1)"},
      {"frequency_penalty", R"("frequency_penalty": 0.5)"},
      {"model", R"("model": 5)"},
      {"stream", R"("stream": "yes")"},
      {"echo", R"("stream": true, "echo": true)"},
      {"tempersture", R"("tempersture": 1)"}};
  for (const auto& [parameter, field] : wrong) REQUIRE(refused(with_prompt(field)) == parameter);
  // JSON has no NaN and no infinity.
  for (const char* number : {"NaN", "Infinity", "-Infinity", "1e999"})
    REQUIRE(refused(with_prompt(std::string(R"("temperature": )") + number)).empty());
  REQUIRE(refused(with_prompt(R"("stop": ")" + std::string(2000, 'x') + "\"")) == "stop");
}
