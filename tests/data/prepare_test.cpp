// Method: folders with known texts are prepared and read back as text, document by document.
#include "data/prepare.h"

#include "base/hash.h"
#include "base/json.h"
#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

class Workshop {
 public:
  Workshop() {
    options.output_prefix = folder.file("out/data");
    options.threads = 2;
  }

  data::PrepareReport prepare() {
    return data::prepare(*storage, *tokenizer, options, [this](const data::PrepareProgress& now) {
      progress.push_back(now.text_bytes);
    });
  }
  // The texts of the dataset; each document must be enclosed by the begin and end ids.
  std::vector<std::string> texts() {
    const auto dataset = data::TokenDataset::open(*storage, options.output_prefix);
    REQUIRE(dataset->tokenizer_name() == "bytes");
    REQUIRE(dataset->vocabulary() == 258);
    std::vector<std::string> result;
    for (int64_t i = 0; i < dataset->document_count(); ++i) {
      std::vector<int32_t> ids(size_t(dataset->document_length(i)));
      dataset->read(i, 0, ids);
      REQUIRE(ids.size() >= 2);
      REQUIRE(ids.front() == tokenizer->begin_id());
      REQUIRE(ids.back() == tokenizer->end_id());
      result.push_back(tokenizer->decode(ids));
      REQUIRE(result.back().size() == ids.size() - 2);
    }
    return result;
  }
  base::Error error() {
    return error_of([&] { prepare(); });
  }
  bool has_output() const {
    return std::filesystem::exists(folder.file("out")) &&
           !std::filesystem::is_empty(folder.file("out"));
  }

  test::TemporaryFolder folder;
  std::unique_ptr<base::Storage> storage = base::make_disk_storage();
  std::unique_ptr<data::Tokenizer> tokenizer =
      data::make_tokenizer(*base::make_disk_storage(), "bytes");
  data::PrepareOptions options;
  std::vector<int64_t> progress;
};

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("prepare: files and folders in sorted order, binary and empty files skipped") {
  Workshop shop;
  write_file(shop.folder.file("in/b.txt"), "second");
  write_file(shop.folder.file("in/a/z.txt"), "first\n");
  write_file(shop.folder.file("in/c.txt"), "");
  write_file(shop.folder.file("in/d.bin"), std::string("x\0y", 3));
  write_file(shop.folder.file("in/e.md"), "\xff\xfe third");
  write_file(shop.folder.file("last.txt"), "zeroth");
  shop.options.inputs = {shop.folder.file("last.txt"), shop.folder.file("in")};
  const auto report = shop.prepare();
  REQUIRE(shop.texts() == Texts{"zeroth", "first\n", "second", "\xff\xfe third"});
  REQUIRE(report.documents == 4);
  REQUIRE(report.bytes == 6 + 6 + 6 + 8);
  REQUIRE(report.tokens == report.bytes + 8);
  REQUIRE(report.files.size() == 2);
  REQUIRE(report.files[0].place == shop.folder.file("in/c.txt"));
  REQUIRE(report.files[0].reason == "empty");
  REQUIRE(report.files[1].place == shop.folder.file("in/d.bin"));
  REQUIRE(report.files[1].reason == "binary: byte 1 of it is zero");
  REQUIRE(shop.progress == std::vector<int64_t>{report.bytes});
}

TEST_CASE("prepare: JSON lines") {
  Workshop shop;
  write_file(shop.folder.file("in/x.jsonl"),
             "{\"text\": \"one\\nline\", \"id\": 1}\r\n\n  \n{\"text\": \"\"}\n{\"text\": "
             "\"\\u00e9\\u0000\"}");
  shop.options.inputs = {shop.folder.file("in")};
  REQUIRE(shop.prepare().documents == 2);
  REQUIRE(shop.texts() == Texts{"one\nline", std::string("\xc3\xa9\0", 3)});

  write_file(shop.folder.file("in/x.jsonl"), "{\"text\": \"no\", \"content\": \"yes\"}\n");
  shop.options.json_field = "content";
  shop.prepare();
  REQUIRE(shop.texts() == Texts{"yes"});
}

TEST_CASE("prepare: a bad line is named, and nothing is left behind") {
  const std::string line = GENERATE(as<std::string>{}, "{", "[]", "3", "{\"other\": \"x\"}",
                                    "{\"text\": 3}", std::string("{\"text\": \"\0\"}", 13));
  INFO(line);
  Workshop shop;
  write_file(shop.folder.file("in/x.jsonl"), "{\"text\": \"good\"}\n" + line + "\n");
  shop.options.inputs = {shop.folder.file("in")};
  const base::Error error = shop.error();
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), "x.jsonl:2: "));
  REQUIRE(contains(error.hint(), "\"text\""));
  REQUIRE(!shop.has_output());
}

TEST_CASE("prepare: what is missing or empty is bad input") {
  Workshop shop;
  SECTION("no such file") {
    shop.options.inputs = {shop.folder.file("nowhere")};
    REQUIRE(contains(shop.error().what(), "nowhere"));
  }
  SECTION("not a file") {
    shop.options.inputs = {"/dev/null"};
    REQUIRE(contains(shop.error().what(), "neither a file nor a folder"));
  }
  SECTION("no inputs") {
    REQUIRE(contains(shop.error().what(), "no text"));
  }
  SECTION("nothing but empty files") {
    write_file(shop.folder.file("in/a.txt"), "");
    shop.options.inputs = {shop.folder.file("in")};
    REQUIRE(contains(shop.error().what(), "1 files and 0 bad lines were left out; "));
  }
  SECTION("no output") {
    shop.options.output_prefix = "";
    REQUIRE(contains(shop.error().what(), "output"));
  }
  REQUIRE(shop.error().code() == base::ExitCode::kBadInput);
  REQUIRE(!shop.has_output());
}

TEST_CASE("prepare: every form of JSON, by the end of the name") {
  const std::string lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
  const std::string spread =
      "{\n  \"text\": \"a\"\n}\n{\"n\": [{\"text\": \"\\\"]\"}],\"text\":\"b\"}";
  const std::string array = "\n[ {\"text\": \"a\"}\n, {\"text\":\n\"b\"} ]\n";
  const std::string texts = "[\"a\",\"b\"]";
  const auto [name, content] =
      GENERATE_REF(table<std::string, std::string>({{"x.jsonl", lines},
                                                    {"x.JSONL", lines},
                                                    {"x.ndjson", "\xef\xbb\xbf" + lines},
                                                    {"x.json", lines},
                                                    {"x.Json", spread},
                                                    {"x.json", "\xef\xbb\xbf" + array},
                                                    {"x.json", array + array.substr(0, 2) + "]"},
                                                    {"x.json", texts}}));
  INFO(name << ": " << content);
  Workshop shop;
  write_file(shop.folder.file("in/" + name), content);
  shop.options.inputs = {shop.folder.file("in")};
  shop.prepare();
  REQUIRE(shop.texts() == Texts{"a", "b"});

  shop.options.json_is_text = true;
  shop.prepare();
  REQUIRE(shop.texts() == Texts{content});
}

TEST_CASE("prepare: JSON without a text in it is named, or skipped and counted") {
  struct Case {
    std::string name, content;
    std::vector<std::string> bad;  // line: reason
    Texts texts;
  };
  const Case one = GENERATE(values<Case>({
      {"x.jsonl",
       "{\"text\":\"a\"}\n{\n\"lone\"\n[\"x\"]\n{\"text\":\"b\"}",
       {"2: ", "3: ", "4: "},
       {"a", "b"}},
      {"x.json", "{\"name\": \"package\"}\n{\"text\":\"a\"}", {"1: "}, {"a"}},
      // A missing quote costs its line, and what is behind is found again.
      {"x.json",
       "{\"text\":\"a\"}\n{\"text\":\"b}\n{\"text\":\"c\"}\n",
       {"2: a value without"},
       {"a", "c"}},
      {"x.json",
       "[{\"text\":\"a\"},\n3,\n\"b\",\n[\"c\"]]\n{\"text\":\"d\"}",
       {"2: ", "4: "},
       {"a", "b", "d"}},
      {"x.json",
       "[{\"text\":\"a\"},\n{\"text\":\"b},\n{\"text\":\"c\"}]",
       {"2: a value without"},
       {"a"}},
      {"x.json", "[{\"text\":\"a\"},\n{\"text\"", {"2: a value without"}, {"a"}},
      {"x.json", "[{\"text\":\"a\"},\n\n", {"3: the file ends"}, {"a"}},
      {"x.json", "{\"text\":\"a\"}\n]}\n", {"2: "}, {"a"}},
  }));
  INFO(one.content);
  Workshop shop;
  const std::string path = shop.folder.file("in/" + one.name);
  write_file(path, one.content);
  shop.options.inputs = {shop.folder.file("in")};
  const base::Error error = shop.error();
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), path + ":" + one.bad.front()));
  REQUIRE(contains(error.hint(), "--skip-bad-lines"));
  REQUIRE(!shop.has_output());

  shop.options.skip_bad_lines = true;
  const auto report = shop.prepare();
  REQUIRE(shop.texts() == one.texts);
  REQUIRE(report.bad_lines == int64_t(one.bad.size()));
  for (size_t i = 0; i < one.bad.size(); ++i) {
    const auto& line = report.first_bad_lines.at(i);
    REQUIRE(contains(line.place + ": " + line.reason, path + ":" + one.bad[i]));
    REQUIRE(!line.reason.empty());
  }
}

TEST_CASE("prepare: of many bad lines the first are named and all are counted") {
  Workshop shop;
  std::string content = "{\"text\": \"good\"}\n";
  for (int i = 0; i < 100; ++i) content += "bad\n";
  write_file(shop.folder.file("in/x.jsonl"), content);
  shop.options.inputs = {shop.folder.file("in")};
  shop.options.skip_bad_lines = true;
  const auto report = shop.prepare();
  REQUIRE(report.bad_lines == 100);
  REQUIRE(report.first_bad_lines.size() == 10);
  REQUIRE(contains(report.first_bad_lines[9].place, "x.jsonl:11"));
}

TEST_CASE("prepare: a file that is no text is left out with what to do about it") {
  const auto [content, reason] = GENERATE(table<std::string, std::string>({{"\xfd"
                                                                            "7zXZ",
                                                                            "xz"},
                                                                           {"BZh9", "bzip2"},
                                                                           {"PK\x03\x04", "zip"},
                                                                           {std::string("\xff\xfe"
                                                                                        "a\0",
                                                                                        4),
                                                                            "UTF-16"}}));
  Workshop shop;
  write_file(shop.folder.file("in/a.txt"), "text");
  write_file(shop.folder.file("in/b"), content);
  shop.options.inputs = {shop.folder.file("in")};
  const auto report = shop.prepare();
  REQUIRE(shop.texts() == Texts{"text"});
  REQUIRE(report.files.size() == 1);
  REQUIRE(contains(report.files[0].reason, reason));
}

TEST_CASE("prepare: a separator stands between documents") {
  Workshop shop;
  shop.options.inputs = {shop.folder.file("in")};
  shop.options.separator = "<|end|>\n";
  write_file(shop.folder.file("in/a"),
             "one\n<|end|>\n\ntwo <|end|><|end|>\n \n<|end|>\nthree<|end|>\n\n");
  write_file(shop.folder.file("in/b"), "four");
  REQUIRE(shop.prepare().documents == 4);
  REQUIRE(shop.texts() == Texts{"one\n", "\ntwo <|end|>", "three", "four"});
}

TEST_CASE(
    "prepare: a text that is too long becomes several documents, a line of JSON is a bad one") {
  Workshop shop;
  shop.options.document_bytes_max = 10;
  shop.options.inputs = {shop.folder.file("in")};
  SECTION("cut behind a line in the second half, or between characters") {
    write_file(shop.folder.file("in/a"), "0123456789");
    write_file(shop.folder.file("in/b"), "012345\n789abcdef\n");
    write_file(shop.folder.file("in/c"), "0\n23456789a");
    write_file(shop.folder.file("in/d"),
               "01234567\xe2\x82\xac"
               "b");
    write_file(shop.folder.file("in/e"), std::string(13, '\x80'));
    const auto report = shop.prepare();
    REQUIRE(report.cut_texts == 4);
    REQUIRE(shop.texts() == Texts{"0123456789", "012345\n", "789abcdef\n", "0\n23456789", "a",
                                  "01234567",
                                  "\xe2\x82\xac"
                                  "b",
                                  std::string(10, '\x80'), std::string(3, '\x80')});
  }
  SECTION("a long binary file") {
    write_file(shop.folder.file("in/a"), "a");
    write_file(shop.folder.file("in/b"), std::string(100, '\0'));
    REQUIRE(shop.prepare().files.size() == 1);
  }
  SECTION("a line") {
    write_file(shop.folder.file("in/a"), "older");
    shop.prepare();
    write_file(shop.folder.file("in/c.jsonl"), "{\"text\": \"\"}\n");
    const base::Error error = shop.error();
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), "in/c.jsonl:1: 12 bytes, at most 10"));
    REQUIRE(shop.texts() == Texts{"older"});  // What was there before is still there.
  }
}

TEST_CASE("prepare: it can be stopped before any document, and an older dataset stays") {
  Workshop shop;
  shop.options.inputs = {shop.folder.file("in")};
  shop.options.document_bytes_max = 16;
  write_file(shop.folder.file("in/a"), "older");
  shop.prepare();
  write_file(shop.folder.file("in/a"), std::string(50, 'x'));
  write_file(shop.folder.file("in/b.jsonl"), "{\"text\": \"\"}\n{\"text\":\"y\"}\n");
  int64_t asked = 0;
  const auto prepare_until = [&](int64_t stop) {
    asked = 0;
    data::prepare(*shop.storage, *shop.tokenizer, shop.options, {},
                  [&] { return ++asked == stop; });
  };
  prepare_until(-1);
  REQUIRE(shop.texts().size() == 5);
  const int64_t questions = asked;
  REQUIRE(questions >= 5);
  write_file(shop.folder.file("in/c"), "more");
  for (int64_t stop = 1; stop <= questions; ++stop) {
    const base::Error error = error_of([&] { prepare_until(stop); });
    REQUIRE(error.code() == base::ExitCode::kResourceLost);
    REQUIRE(contains(error.what(), "was not written"));
    REQUIRE(shop.texts().size() == 5);
    for (const auto& entry : std::filesystem::directory_iterator(shop.folder.file("out")))
      REQUIRE(entry.path().extension() != ".partial");
  }
}

TEST_CASE("prepare: stops when there is enough") {
  Workshop shop;
  shop.options.inputs = {shop.folder.file("in")};
  shop.options.input_bytes_max = 6;
  write_file(shop.folder.file("in/a.txt"), "abc");
  write_file(shop.folder.file("in/b.jsonl"), "{\"text\": \"def\"}\n{\"text\": \"ghi\"}\n");
  write_file(shop.folder.file("in/c.txt"), "jkl");
  REQUIRE(shop.prepare().bytes == 6);
  REQUIRE(shop.texts() == Texts{"abc", "def"});
}

TEST_CASE("prepare: links cannot make a loop") {
  namespace fs = std::filesystem;
  Workshop shop;
  write_file(shop.folder.file("in/sub/a.txt"), "a");
  write_file(shop.folder.file("elsewhere/b.txt"), "b");
  fs::create_directory_symlink("..", shop.folder.file("in/sub/up"));
  fs::create_symlink("itself", shop.folder.file("in/itself"));
  fs::create_symlink("nowhere", shop.folder.file("in/broken"));
  fs::create_symlink("../elsewhere/b.txt", shop.folder.file("in/b"));
  fs::create_directory_symlink("in", shop.folder.file("link"));
  shop.options.inputs = {shop.folder.file("link")};
  const auto report = shop.prepare();
  REQUIRE(shop.texts() == Texts{"b", "a"});
  std::vector<std::string> reasons;
  for (const auto& file : report.files) reasons.push_back(file.reason);
  // broken, itself, sub/up
  REQUIRE(reasons == std::vector<std::string>{"a link that leads nowhere",
                                              "a link that leads nowhere", "a link to a folder"});
}

TEST_CASE("prepare: its own result in the input folder is no input") {
  Workshop shop;
  write_file(shop.folder.file("in/a.txt"), "a");
  shop.options.inputs = {shop.folder.file("in")};
  shop.options.output_prefix = shop.folder.file("in/data");
  for (int time = 0; time < 2; ++time) {
    shop.prepare();
    REQUIRE(shop.texts() == Texts{"a"});
  }
  // Another dataset there is none either, and its description no JSON to complain of.
  shop.options.output_prefix = shop.folder.file("in/other");
  const auto report = shop.prepare();
  REQUIRE(shop.texts() == Texts{"a"});
  REQUIRE(report.files.size() == 3);
}

TEST_CASE("prepare: tells its progress") {
  Workshop shop;
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g"})
    write_file(shop.folder.file(std::string("in/") + name), std::string(700000, 'x'));
  shop.options.inputs = {shop.folder.file("in")};
  shop.prepare();
  REQUIRE(shop.progress == std::vector<int64_t>{1400000, 2800000, 4200000, 4900000});
  data::prepare(*shop.storage, *shop.tokenizer, shop.options, nullptr);
}

TEST_CASE("prepare: the dataset has the same bytes with any number of threads") {
  Workshop shop;
  base::Random random(1);
  std::string lines;
  for (int i = 0; i < 20'000; ++i) {
    lines += "{\"text\": \"";
    for (uint64_t left = random.below(40); left > 0; --left)
      lines += std::to_string(random.below(1000)) + " ";
    lines += i % 1000 == 7 ? "\"\n" : "\"}\n";
  }
  write_file(shop.folder.file("in/a.jsonl"), lines);
  write_file(shop.folder.file("in/b.txt"), std::string(3'000'000, 'x'));
  write_file(shop.folder.file("in/c.jsonl"), lines);
  shop.options.inputs = {shop.folder.file("in")};
  shop.options.skip_bad_lines = true;
  shop.options.document_bytes_max = 100'000;
  shop.options.input_bytes_max = 6'000'000;
  std::vector<std::string> files;
  for (const int threads : {1, 2, 5}) {
    shop.options.threads = threads;
    const auto report = shop.prepare();
    REQUIRE(report.bad_lines >= 20);
    REQUIRE(report.cut_texts == 1);
    REQUIRE(report.bytes >= 6'000'000);
    std::string all;
    for (const char* ending : {".bin", ".idx", ".json"})
      all += read_file(shop.options.output_prefix + ending);
    files.push_back(std::move(all));
  }
  REQUIRE((files[0] == files[1] && files[0] == files[2]));
}

TEST_CASE("prepare: the tokenizer's file lies beside the data") {
  Workshop shop;
  const std::string golden = std::string(ATOLL_SOURCE_ROOT) + "/tests/data/tokenizers/";
  const auto prepare_with = [&](const std::string& name) {
    shop.tokenizer = data::make_tokenizer(*shop.storage, name);
    shop.prepare();
    return *base::JsonValue::parse(read_file(shop.options.output_prefix + ".json"));
  };
  write_file(shop.folder.file("in/a.txt"), "Hello, world!");
  shop.options.inputs = {shop.folder.file("in")};
  const std::string beside = shop.options.output_prefix + ".tokenizer.json";

  const auto llama = prepare_with(golden + "llama3.json");
  REQUIRE(*llama.get("tokenizer")->as_string() == "llama3.json");
  const std::string text = read_file(beside);
  REQUIRE(text == read_file(golden + "llama3.json"));
  REQUIRE(*llama.get("tokenizer_sha256")->as_string() ==
          base::sha256(std::as_bytes(std::span(text))).hex());
  REQUIRE(*llama.get("begin_id")->as_integer() == shop.tokenizer->begin_id());
  REQUIRE(*llama.get("end_id")->as_integer() == shop.tokenizer->end_id());
  const auto dataset = data::TokenDataset::open(*shop.storage, shop.options.output_prefix);
  REQUIRE(dataset->vocabulary() == shop.tokenizer->vocabulary());
  std::vector<int32_t> ids(size_t(dataset->document_length(0)));
  dataset->read(0, 0, ids);
  REQUIRE(ids.front() == shop.tokenizer->begin_id());
  REQUIRE(ids.back() == shop.tokenizer->end_id());
  REQUIRE(shop.tokenizer->decode(ids) == "Hello, world!");

  // No begin id: documents have none.
  REQUIRE(!prepare_with(golden + "gpt2.json").has("begin_id"));
  REQUIRE(
      shop.tokenizer->encode("Hello, world!").size() + 1 ==
      size_t(data::TokenDataset::open(*shop.storage, shop.options.output_prefix)->token_count()));

  // What an older dataset needed does not stay.
  REQUIRE(!prepare_with("bytes").has("tokenizer_sha256"));
  REQUIRE(!std::filesystem::exists(beside));
}
