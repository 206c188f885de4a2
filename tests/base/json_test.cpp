// JSON values and the writer: what is accepted, what is refused and with which words, and that
// numbers keep their bits.
#include "base/json.h"

#include <bit>
#include <cmath>

#include "base/hash.h"
#include "support/catch.h"

using base::JsonValue;
using base::JsonWriter;

namespace {

JsonValue parsed(std::string_view text) {
  auto value = JsonValue::parse(text);
  INFO(text);
  REQUIRE(value.ok());
  return *value;
}

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

std::string nested(int depth) {
  return std::string(size_t(depth), '[') + std::string(size_t(depth), ']');
}

}  // namespace

TEST_CASE("Values are found by key and index", "[json]") {
  const JsonValue document = parsed(R"({"b": [1, {"c": "x"}], "a": true, "d": 2.5, "e": null})");
  REQUIRE(document.is_object());
  REQUIRE(document.keys() == std::vector<std::string>{"a", "b", "d", "e"});
  REQUIRE(document.count() == 4);
  REQUIRE(document.has("a"));
  REQUIRE(!document.has("z"));
  REQUIRE(*document.get("a")->as_boolean());
  REQUIRE(*document.get("d")->as_number() == 2.5);
  const JsonValue list = *document.get("b");
  REQUIRE(list.is_array());
  REQUIRE(list.count() == 2);
  REQUIRE(list.keys().empty());
  REQUIRE(*list.at(0)->as_integer() == 1);
  REQUIRE(*list.at(1)->get("c")->as_string() == "x");
  REQUIRE(list.at(1)->get("c")->path() == "b[1].c");
  REQUIRE(list.at(0)->count() == 0);
  REQUIRE(list.dump() == R"([1,{"c":"x"}])");
}

TEST_CASE("A value keeps its document alive", "[json]") {
  base::Result<JsonValue> inner = base::Failure{""};
  {
    const JsonValue document = parsed(R"({"a": {"b": "text"}})");
    inner = document.get("a");
  }
  REQUIRE(*inner->get("b")->as_string() == "text");
}

TEST_CASE("Getters of the wrong type name the path and what was found", "[json]") {
  const JsonValue document = parsed(R"({"a": {"b": [1, "x", {}]}})");
  const JsonValue list = *document.get("a")->get("b");
  REQUIRE(list.at(1)->as_integer().reason() == "a.b[1]: expected an integer, found \"x\"");
  REQUIRE(list.at(0)->as_string().reason() == "a.b[0]: expected a string, found 1");
  REQUIRE(list.at(2)->as_number().reason() == "a.b[2]: expected a number, found an object");
  REQUIRE(list.at(0)->as_boolean().reason() == "a.b[0]: expected true or false, found 1");
  REQUIRE(list.at(0)->get("x").reason() == "a.b[0]: expected an object, found 1");
  REQUIRE(document.at(0).reason() == "the document: expected an array, found an object");
  REQUIRE(document.get("c").reason() == "c: missing");
  REQUIRE(!list.at(3));
  REQUIRE(!list.at(-1));
}

TEST_CASE("Integers may be written in any form that is exact", "[json]") {
  const auto integer = [](std::string_view text) { return parsed(text).as_integer(); };
  REQUIRE(*integer("1e6") == 1000000);
  REQUIRE(*integer("3.0") == 3);
  REQUIRE(*integer("-2.5e1") == -25);
  REQUIRE(*integer("9223372036854775807") == std::numeric_limits<int64_t>::max());
  REQUIRE(*integer("-9223372036854775808") == std::numeric_limits<int64_t>::min());
  REQUIRE(!integer("3.5"));
  REQUIRE(!integer("9223372036854775808"));
  REQUIRE(!integer("-9223372036854775809"));
  REQUIRE(!integer("1e19"));
  REQUIRE(!integer("9007199254740993.0"));  // 2^53 + 1, which no double is.
  REQUIRE(!integer("true"));
  REQUIRE(*parsed("7").as_number() == 7);
}

TEST_CASE("Texts that are not JSON are refused with the place", "[json]") {
  for (const char* text : {"", "{", "{\"a\": }", "[1,]", "nul", "1 2", "{'a': 1}", "\"\xff\"",
                           "1e999", "{\"a\" 1}", "[1", "// comment\n1", "NaN"}) {
    INFO(text);
    REQUIRE(!JsonValue::parse(text));
  }
  REQUIRE(contains(JsonValue::parse("{\n  \"a\": ?}").reason(), "line 2"));
}

TEST_CASE("A key that stands twice is refused", "[json]") {
  REQUIRE(contains(JsonValue::parse(R"({"a": {"b": 1, "b": 1}})").reason(), "\"b\" stands twice"));
  REQUIRE(JsonValue::parse(R"({"a": {"a": 1}, "b": {"a": 1}})").ok());
}

TEST_CASE("Depth is limited to 64", "[json]") {
  REQUIRE(JsonValue::parse(nested(64)).ok());
  REQUIRE(contains(JsonValue::parse(nested(65)).reason(), "deeper than 64"));
  REQUIRE(!JsonValue::parse(std::string(1 << 20, '[')));  // Ends at level 65, not with the stack.
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  REQUIRE(!JsonValue::parse(objects));
}

TEST_CASE("Overrides replace and add, and make what is missing on the way", "[json]") {
  const JsonValue document = parsed(R"({"optimizer": {"rate": 1}, "sources": [{"w": 1}], "x": 3})");
  const auto with = [&](std::string_view path, std::string_view text) {
    return document.with(path, text);
  };
  REQUIRE(*with("optimizer.rate", "1e-3")->get("optimizer")->get("rate")->as_number() == 1e-3);
  REQUIRE(*with("node.name", "left")->get("node")->get("name")->as_string() == "left");
  REQUIRE(*with("node.name", "\"7\"")->get("node")->get("name")->as_string() == "7");
  REQUIRE(with("node.name", "")->get("node")->get("name")->as_string()->empty());
  REQUIRE(with("a.b.c", "[1, 2]")->get("a")->get("b")->get("c")->count() == 2);
  REQUIRE(*with("sources.0.w", "2")->get("sources")->at(0)->get("w")->as_integer() == 2);
  REQUIRE(*with("sources.1.w", "5")->get("sources")->at(1)->get("w")->as_integer() == 5);
  REQUIRE(with("optimizer", "{}")->get("optimizer")->count() == 0);
  REQUIRE(document.dump() ==
          R"({"optimizer":{"rate":1},"sources":[{"w":1}],"x":3})");  // Unchanged.
}

TEST_CASE("Overrides that fit nowhere are refused", "[json]") {
  const JsonValue document = parsed(R"({"list": [1], "x": 3})");
  REQUIRE(contains(document.with("x.y", "1").reason(), "\"y\" would be inside 3"));
  REQUIRE(contains(document.with("list.2", "1").reason(), "index from 0 to 1, found \"2\""));
  REQUIRE(!document.with("list.-1", "1"));
  REQUIRE(!document.with("list.first", "1"));
  REQUIRE(!document.with("", "1"));
  REQUIRE(!document.with("a..b", "1"));
  REQUIRE(!document.with("a.", "1"));
  std::string deep = "a";
  for (int i = 0; i < 100; ++i) deep += ".a";
  REQUIRE(!document.with(deep, "1"));
}

TEST_CASE("The writer keeps the order of keys", "[json]") {
  JsonWriter writer;
  writer.begin_object().field("z", 1).field("a", "x").key("list").begin_array();
  writer.value(true).null().value(0.5).begin_object().end_object().end_array();
  writer.key("empty").begin_array().end_array().end_object();
  REQUIRE(writer.text() == R"({"z":1,"a":"x","list":[true,null,0.5,{}],"empty":[]})");
}

TEST_CASE("The writer indents", "[json]") {
  JsonWriter writer(2);
  writer.begin_object().field("a", 1).key("b").begin_array().value(1).value(2).end_array();
  writer.key("c").begin_object().end_object().end_object();
  REQUIRE(writer.text() == "{\n  \"a\": 1,\n  \"b\": [\n    1,\n    2\n  ],\n  \"c\": {}\n}");
  REQUIRE(parsed(writer.text()).dump(2) == writer.text());
}

TEST_CASE("Strings survive the way out and in", "[json]") {
  for (const std::string& text : {std::string("a\"b\\c/d"), std::string("\x01\x1f\n\t\r\b\f"),
                                  std::string("\0x", 2), std::string("\xc3\xa9\xf0\x9f\x8c\x8a")}) {
    REQUIRE(*parsed(JsonWriter().value(text).text()).as_string() == text);
  }
  // Bytes that are not UTF-8 are replaced, so that the text stays readable.
  REQUIRE(*parsed(JsonWriter().value("a\xff").text()).as_string() == "a\xef\xbf\xbd");
}

TEST_CASE("Numbers survive the way out and in, bit by bit", "[json]") {
  const auto round_trip = [](double number) {
    const std::string text = JsonWriter().value(number).text();
    INFO(text);
    REQUIRE(std::bit_cast<uint64_t>(*parsed(text).as_number()) == std::bit_cast<uint64_t>(number));
  };
  for (const double number :
       {0.0, -0.0, 1.0, 0.1, 1e-3, 1e22, 1e300, 5e-324, 0x1p53, 0x1p63, 0x1p64, -0x1p63,
        9007199254740993.0, 1e15, 1e16, 1e17, std::numeric_limits<double>::max()}) {
    round_trip(number);
  }
  constexpr uint64_t kSeed = 11;
  base::Random random(kSeed);
  for (int i = 0; i < 2000; ++i) {
    const double number = std::bit_cast<double>(random.next_u64());
    if (std::isfinite(number)) round_trip(number);
  }
  REQUIRE(JsonWriter().value(std::nan("")).text() == "null");
  REQUIRE(JsonWriter().value(-INFINITY).text() == "null");
  REQUIRE(JsonWriter().value(~uint64_t{0}).text() == "18446744073709551615");
  REQUIRE(JsonWriter().value(std::numeric_limits<int64_t>::min()).text() == "-9223372036854775808");
}

TEST_CASE("Garbage is refused or read, and never crashes", "[json]") {
  constexpr uint64_t kSeed = 12;
  base::Random random(kSeed);
  const std::string letters = "{}[]\",:.-+0123456789eEtruefalsn\\ \n\x80\xff";
  int accepted = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    for (uint64_t length = random.below(12); length > 0; --length) {
      text += letters[random.below(letters.size())];
    }
    const auto value = JsonValue::parse(text);
    if (!value) continue;
    ++accepted;
    REQUIRE(parsed(value->dump()).dump() == value->dump());
  }
  REQUIRE(accepted > 10);
}
