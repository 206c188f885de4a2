// Method: folders with known texts are prepared and read back as text, document by document.
#include "data/prepare.h"

#include "data/fixture.h"
#undef CHECK
#include "support/catch.h"

using namespace data_test;

namespace {

class Workshop {
 public:
  Workshop() { options.output_prefix = folder.file("out/data"); }

  data::PrepareReport prepare() {
    return data::prepare(*storage, *tokenizer, options,
                         [this](int64_t bytes) { progress.push_back(bytes); });
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
  std::unique_ptr<data::Tokenizer> tokenizer = data::make_tokenizer("bytes");
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
  REQUIRE(report.skipped_files == 2);
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
  shop.options.jsonl_field = "content";
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
    REQUIRE(contains(shop.error().what(), "1 empty or binary"));
  }
  SECTION("no output") {
    shop.options.output_prefix = "";
    REQUIRE(contains(shop.error().what(), "output"));
  }
  REQUIRE(shop.error().code() == base::ExitCode::kBadInput);
  REQUIRE(!shop.has_output());
}

TEST_CASE("prepare: too long a document or line is bad input, a long binary file is not") {
  Workshop shop;
  shop.options.document_bytes_max = 10;
  shop.options.inputs = {shop.folder.file("in")};
  write_file(shop.folder.file("in/a.txt"), "0123456789");
  write_file(shop.folder.file("in/b.bin"), std::string(100, '\0'));
  REQUIRE(shop.prepare().skipped_files == 1);
  SECTION("file") {
    write_file(shop.folder.file("in/c"), "0123456789a");
  }
  SECTION("line") {
    write_file(shop.folder.file("in/c.jsonl"), "{\"text\": \"\"}\n");
  }
  const base::Error error = shop.error();
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), "in/c"));
  REQUIRE(shop.texts() == Texts{"0123456789"});  // What was there before is still there.
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
  shop.prepare();
  REQUIRE(shop.texts() == Texts{"b", "a"});
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
}

TEST_CASE("prepare: tells its progress") {
  Workshop shop;
  for (const char* name : {"a", "b", "c"})
    write_file(shop.folder.file(std::string("in/") + name), std::string(700000, 'x'));
  shop.options.inputs = {shop.folder.file("in")};
  shop.prepare();
  REQUIRE(shop.progress == std::vector<int64_t>{1400000, 2100000});
  data::prepare(*shop.storage, *shop.tokenizer, shop.options, nullptr);
}
