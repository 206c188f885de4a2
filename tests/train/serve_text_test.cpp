// Tokens as text: characters that come in parts, and names of tokens.
#include "base/file.h"
#include "support/catch.h"
#include "train/serve_fixture.h"

using serve_test::served_tokenizer;
using train::CharacterStream;

TEST_CASE("serve: characters come out whole, however their bytes come") {
  const std::string text = "a\u00e9\u20ac\U0001f600z";
  CharacterStream stream;
  std::string all;
  std::vector<std::string> given;
  for (const char byte : text) {
    given.push_back(stream.push(std::string_view(&byte, 1)));
    all += given.back();
  }
  REQUIRE(all == text);
  REQUIRE(stream.characters() == 5);
  REQUIRE(given[0] == "a");
  REQUIRE(given[1].empty());
  REQUIRE(given[2] == "\u00e9");
  REQUIRE(stream.flush().empty());
}

TEST_CASE("serve: bytes that can be no character are replaced, and hold nothing up") {
  CharacterStream stream;
  REQUIRE(stream.push("\xff") == "\ufffd");
  REQUIRE(stream.push("\xe2\x82").empty());
  REQUIRE(stream.push("x") == "\ufffdx");  // What began could not go on.
  REQUIRE(stream.push("\x80\x80\x80") == "\ufffd\ufffd\ufffd");
  REQUIRE(stream.push("\xf0\x9f").empty());
  REQUIRE(stream.flush() == "\ufffd");
  REQUIRE(stream.characters() == 7);
}

TEST_CASE("serve: names of tokens, and special ones by their names") {
  REQUIRE(served_tokenizer().vocabulary() == 258);
  REQUIRE(served_tokenizer().name_of('a') == "a");
  REQUIRE(served_tokenizer().name_of(0xe2) == "bytes:\\xe2");
  REQUIRE(served_tokenizer().name_of(serve_test::kBegin) == served_tokenizer().begin_text());
  REQUIRE(served_tokenizer().bytes_of(serve_test::kEnd).empty());
  // Clients find the ends by their names.
  REQUIRE(served_tokenizer().encode(served_tokenizer().end_text(), false) ==
          std::vector<int32_t>{serve_test::kEnd});
  REQUIRE(served_tokenizer().encode("ab", true) ==
          std::vector<int32_t>{serve_test::kBegin, 'a', 'b'});
}

TEST_CASE("serve: a tokenizer.json, with its own special tokens") {
  const auto storage = base::make_disk_storage();
  for (const char* const name : {"gpt2", "llama3", "qwen2"}) {
    INFO(name);
    const auto path = std::string(ATOLL_SOURCE_ROOT "/tests/data/tokenizers/") + name + ".json";
    const auto tokenizer = data::make_tokenizer(*storage, path);
    const train::ServedTokenizer served(data::record_of(*tokenizer));
    REQUIRE(served.vocabulary() == tokenizer->vocabulary());
    const std::string text = "h\u00e9 \u4e16 it's";
    REQUIRE(served.encode(text, false) == tokenizer->encode(text));
    REQUIRE(served.has_begin() == (tokenizer->begin_id() != data::Tokenizer::kNoId));
    REQUIRE(served.name_of(tokenizer->end_id()) == served.end_text());
    REQUIRE(served.encode(served.end_text(), false) == std::vector<int32_t>{tokenizer->end_id()});
    CharacterStream stream;
    std::string back;
    for (const int32_t id : tokenizer->encode(text)) back += stream.push(served.bytes_of(id));
    REQUIRE(back == text);
  }
}
