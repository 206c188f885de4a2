// Method: the bytes of a small dataset are written here by hand, after the format's description and
// without the code under test; reader and writer are both held against them. Then the bytes are cut
// and flipped in every way: the reader may refuse, but it may never crash or hand out something
// that is not there.
#include "data/token_dataset.h"

#include "base/hash.h"
#include "base/json.h"
#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

std::string little_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(char(value >> (8 * i)));
  return text;
}

// Three documents: 1 2 3 | (none) | 65535 4, as uint16.
const std::string kGoldenIndex =
    std::string("MMIDIDX\0\0", 9) +                                                //
    std::string("\x01\0\0\0\0\0\0\0", 8) +                                         // version
    std::string("\x08", 1) +                                                       // uint16
    std::string("\x03\0\0\0\0\0\0\0", 8) + std::string("\x04\0\0\0\0\0\0\0", 8) +  // counts
    std::string("\x03\0\0\0\0\0\0\0\x02\0\0\0", 12) +  // lengths 3, 0, 2
    std::string("\0\0\0\0\0\0\0\0", 8) +               // offsets 0, 6, 6
    std::string("\x06\0\0\0\0\0\0\0", 8) + std::string("\x06\0\0\0\0\0\0\0", 8) +  //
    std::string("\0\0\0\0\0\0\0\0", 8) +  // document index 0, 1, 2, 3
    std::string("\x01\0\0\0\0\0\0\0", 8) + std::string("\x02\0\0\0\0\0\0\0", 8) +
    std::string("\x03\0\0\0\0\0\0\0", 8);
const std::string kGoldenBin("\x01\0\x02\0\x03\0\xff\xff\x04\0", 10);
const MemoryDataset::Documents kGoldenDocuments = {{1, 2, 3}, {}, {65535, 4}};

MemoryDataset::Documents read_all(const data::TokenDataset& dataset) {
  MemoryDataset::Documents documents;
  for (int64_t i = 0; i < dataset.document_count(); ++i) {
    documents.emplace_back(size_t(dataset.document_length(i)));
    dataset.read(i, 0, documents.back());
  }
  return documents;
}

class Files {
 public:
  void write(const std::string& index, const std::string& bin) {
    write_file(prefix + ".idx", index);
    write_file(prefix + ".bin", bin);
  }
  std::unique_ptr<data::TokenDataset> open() { return data::TokenDataset::open(*storage, prefix); }
  std::string refusal() {
    const base::Error error = error_of([&] { open(); });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), prefix));
    return error.what();
  }

  test::TemporaryFolder folder;
  std::string prefix = folder.file("golden");
  std::unique_ptr<base::Storage> storage = base::make_disk_storage();
};

void write_documents(base::Storage& storage, const data::TokenDatasetWriter::Options& options,
                     const MemoryDataset::Documents& documents) {
  const auto writer = data::TokenDatasetWriter::create(storage, options);
  for (const auto& document : documents) writer->add_document(document);
  writer->finish();
}

// An index with one entry of each kind, to be spoilt.
struct IndexParts {
  uint64_t version = 1;
  uint64_t type = 4;
  uint64_t sequences = 2;
  uint64_t entries = 3;
  std::vector<int64_t> lengths = {2, 1};
  std::vector<int64_t> offsets = {0, 8};
  std::vector<int64_t> document_index = {0, 1, 2};

  std::string bytes() const {
    std::string text("MMIDIDX\0\0", 9);
    text += little_endian(version, 8) + little_endian(type, 1) + little_endian(sequences, 8);
    text += little_endian(entries, 8);
    for (const int64_t length : lengths) text += little_endian(uint64_t(length), 4);
    for (const int64_t offset : offsets) text += little_endian(uint64_t(offset), 8);
    for (const int64_t entry : document_index) text += little_endian(uint64_t(entry), 8);
    return text;
  }
};

}  // namespace

TEST_CASE("token dataset: reads bytes made by hand") {
  Files files;
  files.write(kGoldenIndex, kGoldenBin);
  const auto dataset = files.open();
  REQUIRE(dataset->prefix() == files.prefix);
  REQUIRE(dataset->token_count() == 5);
  REQUIRE(dataset->vocabulary() == 0);
  REQUIRE(dataset->tokenizer_name().empty());
  REQUIRE(read_all(*dataset) == kGoldenDocuments);
  std::vector<int32_t> middle(1);
  dataset->read(0, 1, middle);
  REQUIRE(middle[0] == 2);
}

TEST_CASE("token dataset: writes the same bytes") {
  Files files;
  write_documents(*files.storage,
                  {.prefix = files.prefix, .vocabulary = 65536, .tokenizer_name = "x"},
                  kGoldenDocuments);
  REQUIRE(read_file(files.prefix + ".idx") == kGoldenIndex);
  REQUIRE(read_file(files.prefix + ".bin") == kGoldenBin);
  const auto json = base::JsonValue::parse(read_file(files.prefix + ".json"));
  REQUIRE(json);
  REQUIRE(*json->get("tokenizer")->as_string() == "x");
  REQUIRE(*json->get("vocabulary")->as_integer() == 65536);
  REQUIRE(*json->get("documents")->as_integer() == 3);
  REQUIRE(*json->get("tokens")->as_integer() == 5);
}

TEST_CASE("token dataset: reads every token type, in any order of the sequences") {
  struct Case {
    uint64_t type;
    int width;
    int32_t token;
  };
  for (const Case& c :
       {Case{1, 1, 200}, Case{3, 2, -2}, Case{4, 4, 70000}, Case{4, 4, -1}, Case{8, 2, 40000}}) {
    Files files;
    IndexParts parts;
    parts.type = c.type;
    parts.offsets = {c.width, 0};
    files.write(parts.bytes(), little_endian(9, c.width) + little_endian(8, c.width) +
                                   little_endian(uint64_t(int64_t{c.token}), c.width));
    REQUIRE(read_all(*files.open()) == MemoryDataset::Documents{{8, c.token}, {9}});
  }
}

TEST_CASE("token dataset: round trip of random documents") {
  const uint64_t seed = GENERATE(1, 2, 3);
  INFO("seed " << seed);
  base::Random random(seed);
  const int64_t vocabulary = seed % 2 == 0 ? 65536 : 65537;
  MemoryDataset::Documents documents(50);
  for (auto& document : documents) {
    document.resize(random.below(3000));
    for (int32_t& id : document) id = int32_t(random.below(uint64_t(vocabulary)));
  }
  Files files;
  write_documents(*files.storage,
                  {.prefix = files.prefix, .vocabulary = vocabulary, .tokenizer_name = "r"},
                  documents);
  const auto dataset = files.open();
  REQUIRE(read_all(*dataset) == documents);
  REQUIRE(dataset->vocabulary() == vocabulary);
  REQUIRE(dataset->tokenizer_name() == "r");
  REQUIRE(std::filesystem::file_size(files.prefix + ".bin") ==
          uint64_t(dataset->token_count()) * (vocabulary == 65536 ? 2 : 4));
}

TEST_CASE("token dataset: truncated at any byte it is bad input") {
  Files files;
  for (size_t bytes = 0; bytes < kGoldenIndex.size(); ++bytes) {
    INFO(bytes << " bytes of the index");
    files.write(kGoldenIndex.substr(0, bytes), kGoldenBin);
    files.refusal();
  }
  for (size_t bytes = 0; bytes < kGoldenBin.size(); ++bytes) {
    INFO(bytes << " bytes of tokens");
    files.write(kGoldenIndex, kGoldenBin.substr(0, bytes));
    files.refusal();
  }
  files.write(kGoldenIndex + "x", kGoldenBin);
  files.refusal();
}

TEST_CASE("token dataset: flipped bits never crash and never reach outside") {
  const uint64_t seed = 20240229;
  base::Random random(seed);
  Files files;
  write_file(files.prefix + ".bin", kGoldenBin);
  int refused = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    INFO("seed " << seed << ", trial " << trial);
    std::string index = kGoldenIndex;
    for (uint64_t flips = 1 + random.below(3); flips > 0; --flips) {
      index[random.below(index.size())] ^= char(1 << random.below(8));
    }
    write_file(files.prefix + ".idx", index);
    try {
      const auto dataset = files.open();
      int64_t tokens = 0;
      for (const auto& document : read_all(*dataset)) tokens += int64_t(document.size());
      REQUIRE(tokens == dataset->token_count());
    } catch (const base::Error& error) {
      REQUIRE(error.code() == base::ExitCode::kBadInput);
      ++refused;
    }
  }
  REQUIRE(refused > 2000);
}

TEST_CASE("token dataset: every inconsistency is bad input") {
  Files files;
  IndexParts parts;
  const std::string bin(12, '\1');
  files.write(parts.bytes(), bin);
  REQUIRE(read_all(*files.open()).size() == 2);

  std::string expected;
  SECTION("version") {
    parts.version = 2, expected = "version 2";
  }
  SECTION("type") {
    parts.type = 5, expected = "token type 5";
  }
  SECTION("type 0") {
    parts.type = 0, expected = "token type 0";
  }
  SECTION("too many sequences") {
    parts.sequences = 3, expected = "do not fit";
  }
  SECTION("too few sequences") {
    parts.sequences = 1, expected = "do not fit";
  }
  SECTION("counts whose product overflows") {
    parts.sequences = (uint64_t{1} << 62) + 2, expected = "do not fit";
  }
  SECTION("entries whose product overflows") {
    parts.entries = (uint64_t{1} << 61) + 3, expected = "do not fit";
  }
  SECTION("largest counts") {
    parts.sequences = parts.entries = UINT64_MAX, expected = "do not fit";
  }
  SECTION("negative length") {
    parts.lengths[1] = -1, expected = "sequence 1 has -1 tokens";
  }
  SECTION("length beyond the file") {
    parts.lengths[1] = 2, expected = "sequence 1";
  }
  SECTION("largest length") {
    parts.lengths[0] = INT32_MAX, expected = "sequence 0";
  }
  SECTION("negative offset") {
    parts.offsets[0] = -4, expected = "at byte -4";
  }
  SECTION("offset not a multiple") {
    parts.offsets[0] = 2, expected = "at byte 2";
  }
  SECTION("offset beyond the file") {
    parts.offsets[1] = 12, expected = "at byte 12";
  }
  SECTION("largest offset") {
    parts.offsets[1] = INT64_MAX - 3, expected = "sequence 1";
  }
  SECTION("overlap") {
    parts.lengths = {3, 1}, expected = "overlap";
  }
  SECTION("document index does not start at 0") {
    parts.document_index = {1, 1, 2}, expected = "entry 0";
  }
  SECTION("document index falls") {
    parts.document_index = {0, 2, 1}, expected = "entry 2";
  }
  SECTION("document index too large") {
    parts.document_index = {0, 1, 3}, expected = "entry 2";
  }
  SECTION("negative document index") {
    parts.document_index = {0, -1, 2}, expected = "entry 1";
  }
  files.write(parts.bytes(), bin);
  const std::string message = files.refusal();
  INFO(message);
  REQUIRE(!expected.empty());
  REQUIRE(contains(message, expected));
}

TEST_CASE("token dataset: a document index without its last entry is read") {
  Files files;
  IndexParts parts;
  parts.document_index = {0};
  parts.entries = 1;
  files.write(parts.bytes(), std::string(12, '\1'));
  REQUIRE(files.open()->document_count() == 2);
}

TEST_CASE("token dataset: a missing file is named") {
  Files files;
  REQUIRE(contains(files.refusal(), "golden.idx"));
  write_file(files.prefix + ".idx", kGoldenIndex);
  REQUIRE(contains(files.refusal(), "golden.bin"));
}

TEST_CASE("token dataset: PREFIX.json must be right if it is there") {
  Files files;
  files.write(kGoldenIndex, kGoldenBin);
  const auto describe = [&](const std::string& text) { write_file(files.prefix + ".json", text); };
  describe(R"({"tokenizer": "t", "vocabulary": 70000, "documents": 3, "tokens": 5, "more": []})");
  REQUIRE(files.open()->vocabulary() == 70000);
  REQUIRE(files.open()->tokenizer_name() == "t");
  for (const char* text :
       {"", "{", "[]", "7", "{}",
        R"({"tokenizer": 1, "vocabulary": 70000, "documents": 3, "tokens": 5})",
        R"({"tokenizer": "t", "vocabulary": 0, "documents": 3, "tokens": 5})",
        R"({"tokenizer": "t", "vocabulary": 3000000000, "documents": 3, "tokens": 5})",
        R"({"tokenizer": "t", "vocabulary": 70000, "documents": 2, "tokens": 5})",
        R"({"tokenizer": "t", "vocabulary": 70000, "documents": 3, "tokens": 6})",
        R"({"tokenizer": "t", "vocabulary": 70000, "documents": "3", "tokens": 5})"}) {
    INFO(text);
    describe(text);
    REQUIRE(contains(files.refusal(), "golden.json"));
  }
  describe(std::string(size_t{2} << 20, ' '));
  REQUIRE(contains(files.refusal(), "too long"));
}

TEST_CASE("token dataset writer: refuses what cannot be written") {
  Files files;
  const auto create = [&](int64_t vocabulary) {
    return data::TokenDatasetWriter::create(*files.storage,
                                            {.prefix = files.prefix, .vocabulary = vocabulary});
  };
  REQUIRE(is_bad_input([&] { create(0); }));
  REQUIRE(is_bad_input([&] { create((int64_t{1} << 31) + 1); }));
  const auto writer = create(10);
  const std::vector<int32_t> too_large = {1, 10}, negative = {-1};
  REQUIRE(is_bad_input([&] { writer->add_document(too_large); }));
  REQUIRE(is_bad_input([&] { writer->add_document(negative); }));
}

TEST_CASE("token dataset writer: nothing is there before finish") {
  Files files;
  {
    const auto writer = data::TokenDatasetWriter::create(
        *files.storage, {.prefix = files.prefix, .vocabulary = 10});
    writer->add_document(std::vector<int32_t>{1, 2});
    for (const char* ending : {".idx", ".bin", ".json"}) {
      REQUIRE(!std::filesystem::exists(files.prefix + ending));
    }
  }
  REQUIRE(std::filesystem::is_empty(files.folder.path()));
}
