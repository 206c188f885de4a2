// Method: every byte there and back, and what lies outside.
#include "data/tokenizer.h"

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

TEST_CASE("byte tokenizer: every byte is its own id") {
  const auto tokenizer = data::make_tokenizer(*base::make_disk_storage(), "bytes");
  REQUIRE(tokenizer->name() == "bytes");
  REQUIRE(tokenizer->vocabulary() == 258);
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(char(byte));
  const auto ids = tokenizer->encode(text);
  REQUIRE(ids.size() == 256);
  for (int32_t i = 0; i < 256; ++i) REQUIRE(ids[size_t(i)] == i);
  REQUIRE(tokenizer->decode(ids) == text);
  REQUIRE(tokenizer->encode("").empty());
}

TEST_CASE("byte tokenizer: special and unknown ids become nothing") {
  const auto tokenizer = data::make_tokenizer(*base::make_disk_storage(), "bytes");
  REQUIRE(tokenizer->begin_id() == 256);
  REQUIRE(tokenizer->end_id() == 257);
  REQUIRE(tokenizer->decode({256, 'a', 300, -1, INT32_MIN, 'b', 257}) == "ab");
}

TEST_CASE("tokenizer: an unknown name is bad input that says what there is") {
  const base::Error error =
      error_of([] { data::make_tokenizer(*base::make_disk_storage(), "words"); });
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), "words"));
  REQUIRE(contains(error.hint(), "bytes"));
  REQUIRE(contains(error.hint(), "tokenizer.json"));
}

TEST_CASE("tokenizer: a folder stands for its tokenizer.json, a SentencePiece model for nothing") {
  const test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  const auto error = error_of([&] { data::make_tokenizer(*storage, folder.file("")); });
  REQUIRE(contains(error.what(), "tokenizer.json"));
  write_file(folder.file("tokenizer.model"), "x");
  const auto model =
      error_of([&] { data::make_tokenizer(*storage, folder.file("tokenizer.model")); });
  REQUIRE(contains(model.what(), "SentencePiece"));
  REQUIRE(is_bad_input([&] { data::make_tokenizer(*storage, "bytes", {.end_token = "x"}); }));
}
