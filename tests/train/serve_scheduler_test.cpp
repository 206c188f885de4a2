// Requests of several threads against one small model: each gets what it would get alone.
#include <limits>
#include <thread>

#include "backend/backend.h"
#include "support/catch.h"
#include "train/serve/scheduler.h"
#include "train/serve_fixture.h"

namespace {

using serve_test::greedy_request;
using serve_test::served_tokenizer;
using train::Generation;
using train::Scheduler;
using train::ServedRequest;

model::ModelConfig served_config() {
  return {.vocabulary = serve_test::kVocabulary,
          .width = 24,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 8,
          .feed_forward = 32,
          .sequence_length = 64};
}

// What a decoder stands on.
struct SmallModel {
  explicit SmallModel(int64_t sequences, bool is_broken)
      : backend(std::move(backend::make_cpu_backends({.threads_per_rank = 1}).front())),
        layout(model::make_layout(served_config())),
        parameters(layout, backend),
        decoder(served_config(), {.sequences = sequences, .batch_rows = 16}, parameters, backend) {
    parameters.initialize(3);
    if (!is_broken) return;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    parameters.copy_masters_from_host(0, 0, std::vector<float>(24 * 300, nan));
  }

  backend::Backend backend;
  shard::Layout layout;
  shard::Parameters parameters;
  model::Decoder decoder;
};

Scheduler::MakeDecoder small_model(int64_t sequences, bool is_broken = false) {
  return [=] {
    const auto small = std::make_shared<SmallModel>(sequences, is_broken);
    return std::shared_ptr<model::Decoder>(small, &small->decoder);
  };
}

std::shared_ptr<ServedRequest> make_request(const std::vector<std::string>& prompts,
                                            int64_t tokens) {
  auto request = std::make_shared<ServedRequest>();
  request->asked = greedy_request(prompts[0], tokens);
  request->asked.prompts.clear();
  for (const std::string& prompt : prompts)
    request->asked.prompts.push_back(served_tokenizer().encode(prompt, false));
  for (size_t i = 0; i < prompts.size(); ++i) {
    request->generations.push_back(
        std::make_unique<Generation>(served_tokenizer(), request->asked, int64_t(i), 1));
  }
  return request;
}

std::vector<std::string> finish(Scheduler& scheduler,
                                const std::shared_ptr<ServedRequest>& request) {
  scheduler.watch(*request, [](const ServedRequest& now) { return now.is_done(); });
  std::vector<std::string> texts;
  for (const auto& generation : request->generations) texts.push_back(generation->text());
  return texts;
}

std::vector<std::string> ask(Scheduler& scheduler, const std::vector<std::string>& prompts,
                             int64_t tokens) {
  const auto request = make_request(prompts, tokens);
  REQUIRE(scheduler.submit(request));
  return finish(scheduler, request);
}

}  // namespace

TEST_CASE("serve: prompts side by side say what they say alone") {
  const std::vector<std::string> prompts{"a", "some words", "another prompt that is rather long",
                                         "x", "yy"};
  std::vector<std::string> alone;
  {
    Scheduler scheduler({.sequences = 1, .batch_rows = 16}, small_model(1));
    for (const std::string& prompt : prompts) alone.push_back(ask(scheduler, {prompt}, 12).front());
  }
  Scheduler scheduler({.sequences = 3, .batch_rows = 16}, small_model(3));
  REQUIRE(ask(scheduler, prompts, 12) == alone);
  REQUIRE(ask(scheduler, prompts, 12) == alone);
}

TEST_CASE("serve: requests of several threads") {
  Scheduler scheduler({.sequences = 2, .batch_rows = 16}, small_model(2));
  const auto expected = ask(scheduler, {"abc", "d"}, 8);
  std::vector<std::thread> threads;
  std::vector<std::vector<std::string>> found(4);
  for (size_t i = 0; i < found.size(); ++i) {
    threads.emplace_back([&, i] {
      const auto request = make_request({"abc", "d"}, 8);
      if (scheduler.submit(request)) found[i] = finish(scheduler, request);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& texts : found) REQUIRE(texts == expected);
}

TEST_CASE("serve: a request that is abandoned makes room") {
  Scheduler scheduler({.sequences = 1, .batch_rows = 16}, small_model(1));
  const auto endless = make_request(std::vector<std::string>(1000, "a"), 60);
  REQUIRE(scheduler.submit(endless));
  scheduler.abandon(*endless);
  REQUIRE(ask(scheduler, {"x"}, 2).front().size() <= 8);
  REQUIRE_FALSE(endless->is_done());
}

TEST_CASE("serve: more prompts than may wait are refused, but not the first request") {
  Scheduler scheduler({.sequences = 1, .batch_rows = 16, .queue = 2}, small_model(1));
  const auto many = make_request(std::vector<std::string>(1000, "a"), 60);
  REQUIRE(scheduler.submit(many));
  const auto refused = make_request({"a", "b", "c"}, 1);
  REQUIRE_FALSE(scheduler.submit(refused));
  scheduler.abandon(*many);
  REQUIRE(ask(scheduler, {"x"}, 1).size() == 1);
}

TEST_CASE("serve: a model that says nothing fails its requests, and the next ones too") {
  Scheduler scheduler({.sequences = 2, .batch_rows = 16}, small_model(2, /*is_broken=*/true));
  for (int i = 0; i < 2; ++i) {
    const auto request = make_request({"a", "b", "c"}, 5);
    REQUIRE(scheduler.submit(request));
    finish(scheduler, request);
    REQUIRE(request->failure.find("not finite") != std::string::npos);
  }
}

TEST_CASE("serve: what throws while the decoder is made is thrown to the maker") {
  REQUIRE_THROWS_AS(Scheduler({},
                              []() -> std::shared_ptr<model::Decoder> {
                                throw base::bad_input("as the test wished");
                              }),
                    base::Error);
}
