// Method: small tokenizers of the three families and one with all that is odd, trained by the
// `tokenizers` package, and the package's ids for texts that are hard to split: see
// tokenizer_golden.py, which also compares live.
#include <array>
#include <thread>

#include "base/json.h"
#include "data/fixture.h"
#include "data/tokenizer.h"
#include "data/utf8.h"
#include "support/catch.h"

using namespace data_test;

namespace {

const std::string kGoldenFolder = std::string(ATOLL_SOURCE_ROOT) + "/tests/data/tokenizers/";

base::JsonValue golden_json() {
  return *base::JsonValue::parse(read_file(kGoldenFolder + "golden.json"));
}

std::vector<int32_t> golden_ids(const base::JsonValue& list) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < list.count(); ++i) ids.push_back(int32_t(*list.at(i)->as_integer()));
  return ids;
}

std::vector<std::string> golden_texts(const base::JsonValue& list) {
  std::vector<std::string> texts;
  for (int64_t i = 0; i < list.count(); ++i) texts.push_back(*list.at(i)->as_string());
  return texts;
}

std::unique_ptr<data::Tokenizer> golden_tokenizer(const std::string& kind,
                                                  const data::TokenizerOptions& options = {}) {
  return data::make_tokenizer(*base::make_disk_storage(), kGoldenFolder + kind + ".json", options);
}

const std::array<std::string, 4> kKinds = {"gpt2", "llama3", "qwen2", "odd"};

}  // namespace

TEST_CASE("tokenizer.json: ids and texts are those of the tokenizers package") {
  const base::JsonValue golden = golden_json();
  const auto texts = golden_texts(*golden.get("texts"));
  REQUIRE(texts.size() > 90);
  for (const std::string& kind : kKinds) {
    const auto expected = *golden.get("tokenizers")->get(kind);
    const auto tokenizer = golden_tokenizer(kind);
    REQUIRE(tokenizer->name() == kind + ".json");
    REQUIRE(tokenizer->definition() == read_file(kGoldenFolder + kind + ".json"));
    REQUIRE(tokenizer->vocabulary() == *expected.get("vocabulary")->as_integer());
    REQUIRE(tokenizer->end_id() == *expected.get("end")->as_integer());
    const auto decoded = golden_texts(*expected.get("decoded"));
    // Twice: the second time words are known.
    for (int round = 0; round < 2; ++round) {
      for (size_t i = 0; i < texts.size(); ++i) {
        INFO(kind << ": " << texts[i]);
        const auto ids = golden_ids(*expected.get("ids")->at(int64_t(i)));
        REQUIRE(tokenizer->encode(texts[i]) == ids);
        // The package shows what is cut inside a character as U+FFFD.
        REQUIRE(data::replace_invalid_utf8(tokenizer->decode(ids)) == decoded[i]);
      }
    }
    const auto any_decoded = golden_texts(*expected.get("any_decoded"));
    for (size_t i = 0; i < any_decoded.size(); ++i) {
      const auto ids = golden_ids(*expected.get("any_ids")->at(int64_t(i)));
      REQUIRE(data::replace_invalid_utf8(tokenizer->decode(ids)) == any_decoded[i]);
    }
  }
}

TEST_CASE("tokenizer.json: several threads at once give the same ids") {
  const auto texts = golden_texts(*golden_json().get("texts"));
  const auto tokenizer = golden_tokenizer("qwen2");
  std::vector<std::vector<int32_t>> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer->encode(text));
  std::array<bool, 4> is_equal{};
  {
    std::vector<std::jthread> threads;
    for (bool& equal : is_equal) {
      threads.emplace_back([&] {
        equal = true;
        for (size_t i = 0; i < texts.size(); ++i)
          equal = equal && tokenizer->encode(texts[i]) == expected[i];
      });
    }
  }
  REQUIRE(is_equal == std::array<bool, 4>{true, true, true, true});
}

TEST_CASE("tokenizer.json: text that is not UTF-8 has U+FFFD for each part that is no character") {
  const auto tokenizer = golden_tokenizer("llama3");
  REQUIRE(tokenizer->encode("a\xff z\xe2\x82 \xf0\x9f\x98") ==
          tokenizer->encode("a\uFFFD z\uFFFD \uFFFD"));
}

TEST_CASE("tokenizer.json: begin and end") {
  const auto llama = golden_tokenizer("llama3");
  REQUIRE(llama->encode("<|begin_of_text|>") == std::vector<int32_t>{llama->begin_id()});
  REQUIRE(llama->encode("<|end_of_text|>") == std::vector<int32_t>{llama->end_id()});
  REQUIRE(llama->decode({llama->begin_id(), llama->end_id(), -1, INT32_MAX, INT32_MIN}).empty());
  REQUIRE(golden_tokenizer("gpt2")->begin_id() == data::Tokenizer::kNoId);
  REQUIRE(golden_tokenizer("qwen2")->begin_id() == data::Tokenizer::kNoId);
  REQUIRE(golden_tokenizer("llama3", {.begin_token = "none"})->begin_id() ==
          data::Tokenizer::kNoId);
  const auto chosen =
      golden_tokenizer("qwen2", {.begin_token = "<|im_start|>", .end_token = "<|im_end|>"});
  REQUIRE(chosen->encode("<|im_start|><|im_end|>") ==
          std::vector<int32_t>{chosen->begin_id(), chosen->end_id()});
  for (const data::TokenizerOptions& options :
       {data::TokenizerOptions{.begin_token = "<no such>"}, {.end_token = "none"}}) {
    const auto error = error_of([&] { golden_tokenizer("qwen2", options); });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
  }
}
