// Method: the parts of a tokenizer against tables and against simpler ways to the same end; what a
// broken or foreign tokenizer.json is answered with.
#include <utf8proc.h>

#include "base/hash.h"
#include "data/byte_level.h"
#include "data/fixture.h"
#include "data/tokenizer.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/nfc.h"
#include "data/tokenizer/pattern.h"
#include "data/utf8.h"
#include "support/catch.h"

using namespace data_test;

namespace {

std::string encoded(char32_t code) {
  uint8_t bytes[4];
  const auto count = utf8proc_encode_char(utf8proc_int32_t(code), bytes);
  return {reinterpret_cast<const char*>(bytes), size_t(count)};
}

// All at once, which to_nfc() avoids.
std::string simple_nfc(const std::string& text) {
  uint8_t* result = nullptr;
  const auto bytes =
      utf8proc_map(reinterpret_cast<const uint8_t*>(text.data()), utf8proc_ssize_t(text.size()),
                   &result, utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::string normal(reinterpret_cast<const char*>(result), size_t(bytes));
  free(result);
  return normal;
}

}  // namespace

TEST_CASE("UTF-8: each maximal part of what is no character becomes one U+FFFD") {
  const auto [text, expected] = GENERATE(table<std::string, std::string>({
      {"", ""},
      {"plain", "plain"},
      {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"\x80", "\uFFFD"},
      {"a\xc3", "a\uFFFD"},
      {"\xc3(", "\uFFFD("},
      {"\xc0\xaf", "\uFFFD\uFFFD"},                      // Too long a form.
      {"\xe0\x80\xaf", "\uFFFD\uFFFD\uFFFD"},            // Too long a form.
      {"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},            // A surrogate.
      {"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // Beyond U+10FFFF.
      {"\xf0\x9f\x98z", "\uFFFDz"},
      {"\xe2\x82\xe2\x82\xac", "\uFFFD\xe2\x82\xac"},
      {"long enough for words of eight bytes \xff", "long enough for words of eight bytes \uFFFD"},
  }));
  REQUIRE(data::replace_invalid_utf8(text) == expected);
  REQUIRE((data::valid_utf8_bytes(text) == text.size()) == (text == expected));
}

TEST_CASE("UTF-8: every character there and back") {
  for (char32_t code = 0; code < 0x110000; code += code < 0x900 ? 1 : 37) {
    if (code >= 0xD800 && code < 0xE000) continue;
    const std::string text = encoded(code);
    const auto character = data::character_at(text, 0);
    REQUIRE(character.code == code);
    REQUIRE(character.bytes == text.size());
    REQUIRE(character.is_valid);
    REQUIRE(data::previous_character("x" + text, 1 + text.size()) == 1);
  }
}

TEST_CASE("byte-level alphabet: 256 letters, there and back") {
  REQUIRE(data::byte_level_letter(' ') == "\u0120");
  REQUIRE(data::byte_level_letter('\n') == "\u010A");
  REQUIRE(data::byte_level_letter('a') == "a");
  REQUIRE(data::byte_level_letter(0xAD) == "\u0143");
  std::string token, bytes;
  for (int byte = 0; byte < 256; ++byte) {
    token += data::byte_level_letter(uint8_t(byte));
    bytes += char(byte);
  }
  REQUIRE(data::byte_level_bytes(token) == bytes);
  for (const char* other : {" ", "a b", "\n", "\u0144", "\u2581", "\u00AD"})
    REQUIRE(!data::byte_level_bytes(other));
}

TEST_CASE("NFC: in parts as in one piece") {
  // Every character up to the last that is called inert, alone and between others.
  for (char32_t code = 0; code < 0xD7B0; ++code) {
    if (data::is_later_mark(code)) continue;
    for (const std::string& text :
         {encoded(code), "e" + encoded(code) + "\u0301", "\uAC00" + encoded(code) + "\u05D0"}) {
      if (data::to_nfc(text) != simple_nfc(text)) FAIL("U+" << std::hex << uint32_t(code));
      if (data::is_surely_nfc(text) && simple_nfc(text) != text)
        FAIL("U+" << std::hex << uint32_t(code));
    }
  }
  const std::vector<std::string> parts = {
      "a",      "e",      "\u0301", "\u0323", "\u0345", "\u1100", "\u1161", "\u11A8",    "\u304B",
      "\u3099", "\u0915", "\u093C", "\u05D0", " ",      "\u2126", "\u00E9", "\U0001D15E"};
  base::Random random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (uint64_t left = random.below(12); left > 0; --left)
      text += parts[random.below(parts.size())];
    REQUIRE(data::to_nfc(text) == simple_nfc(text));
  }
}

TEST_CASE("NFC: marks that came after Unicode 9 are left alone, and end what is ordered") {
  // U+08D2 has the class 220, U+0301 230, U+0323 220.
  REQUIRE(data::to_nfc("\u0308\u08d2") == "\u0308\u08d2");
  REQUIRE(data::to_nfc("e\u08d2\u0301") == "e\u08d2\u0301");
  REQUIRE(data::to_nfc("\u08d2\u0301\u0323e\u0301") == "\u08d2\u0323\u0301\u00e9");
  REQUIRE(data::to_nfc("e\u0301\u0323\u08d2\u08d2") == "\u1eb9\u0301\u08d2\u08d2");
  REQUIRE(data::is_later_mark(0x1E4EF));
  for (const int code : {0x0, 0x301, 0x7FC, 0x7FE, 0x8A0, 0x1E4F0, 0x10FFFF})
    REQUIRE(!data::is_later_mark(char32_t(code)));
}

TEST_CASE("patterns: what Oniguruma and PCRE2 understand differently") {
  const auto translated = [](const char* pattern) { return *data::translate_pattern(pattern); };
  REQUIRE(translated("\\p{L}+|[^\\s\\p{N}]\\S") ==
          "\\p{L}+|[^\\p{White_Space}\\p{N}]\\P{White_Space}");
  const std::string word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
  REQUIRE(translated("\\w[\\w\\v]\\W") == "[" + word + "][" + word + "\\x0b][^" + word + "]");
  REQUIRE(translated("(?i:'s)|(?=x)|(?<!y)|a{1,3}|\\x{10}++|[!-\\/:$^&]|\u00e9\\\u00e9") ==
          "(?i:'s)|(?=x)|(?<!y)|a{1,3}|\\x{10}++|[!-\\/:$^&]|\u00e9\\\u00e9");
  const char* const refused =
      GENERATE("^a", "a$", "\\ba", "\\h", "\\R", "\\X", "\\1", "[a[b]]", "[[:alpha:]]", "[a&&b]",
               "[]", "[^]x]", "(?m:.)", "(?<name>x)", "a{2}+", "[\\W]", "\\", "\\p{L");
  INFO(refused);
  REQUIRE(!data::translate_pattern(refused));
  REQUIRE(!data::Pattern::compile(refused));
}

TEST_CASE("patterns: matches, broken patterns, and patterns without end") {
  data::PatternScratch scratch;
  data::Pattern::Match match;
  const auto letters = *data::Pattern::compile("\\p{L}+");
  REQUIRE(letters->find("12 \u00e9t\u00e9 x", 2, scratch, match));
  REQUIRE(match.begin == 3);
  REQUIRE(match.end == 8);
  REQUIRE(!letters->find("12 x", 4, scratch, match));
  const auto literal = *data::Pattern::compile_literal("a.b");
  REQUIRE(!literal->find("axb", 0, scratch, match));
  REQUIRE(literal->find("xa.b", 0, scratch, match));
  REQUIRE(contains(data::Pattern::compile("(a").reason(), "parenthes"));
  // A run as long as a document takes no stack and no more than its length of time.
  const auto words = *data::Pattern::compile("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
  const std::string spaces = std::string(3'000'000, ' ') + "x";
  REQUIRE(words->find(spaces, 0, scratch, match));
  REQUIRE(match.end == spaces.size() - 2);
}

TEST_CASE("byte-pair encoding: a long word takes no quadratic time, and merges by rank") {
  data::BpeOptions options;
  for (int i = 0; i < 256; ++i) options.byte_ids[size_t(i)] = i;
  // aa, then aaaa, then bc before ab.
  options.merges = {{'a', 'a', 300}, {300, 300, 301}, {'b', 'c', 302}, {'a', 'b', 303}};
  const data::Bpe bpe(options);
  data::BpeScratch scratch;
  const auto ids_of = [&](std::string_view word) {
    std::vector<int32_t> ids;
    bpe.append_word(word, scratch, ids);
    return ids;
  };
  REQUIRE(ids_of("aaaaa") == std::vector<int32_t>{301, 'a'});
  REQUIRE(ids_of("aaa") == std::vector<int32_t>{300, 'a'});
  REQUIRE(ids_of("abc") == std::vector<int32_t>{'a', 302});
  REQUIRE(ids_of("abd") == std::vector<int32_t>{303, 'd'});
  REQUIRE(ids_of(std::string(2'000'000, 'a')) == std::vector<int32_t>(500'000, 301));
}

namespace {

// A tokenizer.json with one merge; `spoil` may replace a part of it.
std::string tokenizer_text(const std::string& part = "", const std::string& by = "") {
  std::string vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string letter = data::byte_level_letter(uint8_t(byte));
    vocabulary += (letter == "\"" || letter == "\\" ? "\"\\" + letter : "\"" + letter) +
                  "\":" + std::to_string(byte) + ",";
  }
  std::string text =
      R"({"added_tokens":[{"id":257,"content":"<|endoftext|>","single_word":false,"lstrip":false,)"
      R"("rstrip":false,"normalized":false,"special":true}],"normalizer":null,)"
      R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
      R"("post_processor":null,"model":{"type":"BPE","byte_fallback":false,"vocab":{)" +
      vocabulary + R"("ab":256},"merges":["a b"]}})";
  if (!part.empty()) {
    const size_t place = text.find(part);
    REQUIRE(place != std::string::npos);
    text.replace(place, part.size(), by);
  }
  return text;
}

base::Error error_of_file(const std::string& text) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("tokenizer.json");
  write_file(path, text);
  const base::Error error =
      error_of([&] { data::make_tokenizer(*base::make_disk_storage(), path); });
  if (error.code() != base::ExitCode::kDone)
    REQUIRE((contains(error.what(), path) || contains(error.hint(), "--end")));
  return error;
}

}  // namespace

TEST_CASE("tokenizer.json: what is not supported is named") {
  const auto [part, by, named] = GENERATE(table<std::string, std::string, std::string>({
      {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "a model of type Unigram"},
      {"\"type\":\"BPE\"", "\"type\":\"WordPiece\"", "a model of type WordPiece"},
      {"\"byte_fallback\":false", "\"byte_fallback\":true", "SentencePiece"},
      {"\"byte_fallback\":false", "\"dropout\":0.1", "dropout"},
      {"\"byte_fallback\":false", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix"},
      {"\"a\":97,", "", "a vocabulary without the byte 0x61"},
      {"\"normalizer\":null", R"("normalizer":{"type":"NFKC"})", "the normalizer NFKC"},
      {"\"normalizer\":null",
       R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"}]})",
       "the normalizer Lowercase"},
      {"{\"type\":\"ByteLevel\"", "{\"type\":\"Metaspace\"", "the pre-tokenizer Metaspace"},
      {R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})", "null", "ByteLevel"},
      {R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})",
       R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})",
       "Digits behind ByteLevel"},
      {R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})",
       R"({"type":"Split","pattern":{"Regex":"^x"},"behavior":"Isolated"})",
       "an anchor at lines in the pattern \"^x\""},
      {R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})",
       R"({"type":"Split","pattern":{"Regex":"x"},"behavior":"MergedWithNext"})",
       "the behavior MergedWithNext"},
  }));
  INFO(by);
  const base::Error error = error_of_file(tokenizer_text(part, by));
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), named));
  REQUIRE(contains(error.what(), "is not supported"));
  REQUIRE(contains(error.hint(), "byte-level BPE"));
}

TEST_CASE("tokenizer.json: what is broken is named") {
  const auto [part, by, named] = GENERATE(table<std::string, std::string, std::string>({
      {"{\"added", "[\"added", ""},
      {"\"model\":", "\"muddle\":", "model: missing"},
      {"\"vocab\":", "\"words\":", "model.vocab: missing"},
      {"\"merges\":[\"a b\"]", "\"merges\":[\"ab\"]", "model.merges[0]"},
      {"\"merges\":[\"a b\"]", "\"merges\":[[\"a\"]]", "model.merges[0]"},
      {"\"merges\":[\"a b\"]", "\"merges\":[3]", "model.merges[0]"},
      {"\"merges\":[\"a b\"]", "\"merges\":[\"a c\"]", "\"ac\""},
      {"\"ab\":256", "\"ab\":97", "two tokens have the id 97"},
      {"\"ab\":256", "\"ab\":-1", "\"ab\" has the id -1"},
      {"\"ab\":256", "\"ab\":4194304", "\"ab\" has the id 4194304"},
      {"\"ab\":256", "\"ab\":\"x\"", "model.vocab.ab"},
      {"\"id\":257", "\"id\":256", "two tokens have the id 256"},
      {"\"content\":\"<|endoftext|>\"", "\"content\":\"a\"", "\"a\" has the ids 97 and 257"},
      {"\"special\":true", "\"special\":3", "added_tokens[0].special"},
      {"<|endoftext|>", "<other>", "no token that is known to end a text"},
  }));
  INFO(by);
  const base::Error error = error_of_file(tokenizer_text(part, by));
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), named));
}

TEST_CASE("tokenizer.json: however it is cut and spoilt, it is read or refused") {
  REQUIRE(error_of_file(tokenizer_text()).code() == base::ExitCode::kDone);
  const std::string text = tokenizer_text();
  base::Random random(7);
  const test::TemporaryFolder folder;
  const std::string path = folder.file("tokenizer.json");
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string spoilt = text;
    if (i % 2 == 0) spoilt.resize(random.below(text.size()));
    if (i % 2 == 1) spoilt[random.below(text.size())] = char(random.below(128));
    write_file(path, spoilt);
    const base::Error error =
        error_of([&] { data::make_tokenizer(*base::make_disk_storage(), path)->encode("ab c"); });
    REQUIRE((error.code() == base::ExitCode::kDone || error.code() == base::ExitCode::kBadInput));
    refused += error.code() == base::ExitCode::kBadInput;
  }
  REQUIRE(refused >= 200);
}
