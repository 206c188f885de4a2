// Method: files are written here byte by byte after datatrove's own writer, read, and then cut and
// spoilt: the reader may refuse, but never hand out what is not there.
#include "base/hash.h"
#include "data/fixture.h"
#include "data/sampler.h"
#include "support/catch.h"

using namespace data_test;

namespace {

std::string datatrove_numbers(const std::vector<uint64_t>& numbers, int width) {
  std::string bytes;
  for (const uint64_t number : numbers)
    for (int i = 0; i < width; ++i) bytes += char(number >> (8 * i));
  return bytes;
}

class DatatroveFiles {
 public:
  DatatroveFiles() {
    write_file(path, datatrove_numbers({1, 2, 3, 65535, 4}, 2));
    write_file(path + ".index", datatrove_numbers({3, 3, 5}, 8));
    write_file(path + ".metadata", "gpt2|2\n5\n5 T");
  }
  std::unique_ptr<data::TokenDataset> open() { return data::TokenDataset::open(*storage, path); }
  std::string refusal() {
    const base::Error error = error_of([&] { open(); });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), path));
    return error.what();
  }
  test::TemporaryFolder folder;
  std::string path = folder.file("00000_unshuffled.ds");
  std::unique_ptr<base::Storage> storage = base::make_disk_storage();
};

MemoryDataset::Documents datatrove_documents(const data::TokenDataset& dataset) {
  MemoryDataset::Documents documents;
  for (int64_t i = 0; i < dataset.document_count(); ++i) {
    documents.emplace_back(size_t(dataset.document_length(i)));
    dataset.read(i, 0, documents.back());
  }
  return documents;
}

}  // namespace

TEST_CASE("datatrove: tokens of two and of four bytes, by the .ds file or without its ending") {
  DatatroveFiles files;
  const auto dataset = files.open();
  REQUIRE(datatrove_documents(*dataset) == MemoryDataset::Documents{{1, 2, 3}, {}, {65535, 4}});
  REQUIRE(dataset->token_count() == 5);
  REQUIRE(dataset->tokenizer_name() == "gpt2");
  REQUIRE(dataset->vocabulary() == 0);
  std::vector<int32_t> part(1);
  dataset->read(2, 1, part);
  REQUIRE(part[0] == 4);

  write_file(files.path, datatrove_numbers({1, 2, 3, 100000, 4}, 4));
  write_file(files.path + ".metadata", "some|name\n5\n");
  const std::string name = files.path.substr(0, files.path.size() - 3);
  const auto wide = data::TokenDataset::open(*files.storage, name);
  REQUIRE(wide->prefix() == name);
  REQUIRE(datatrove_documents(*wide) == MemoryDataset::Documents{{1, 2, 3}, {}, {100000, 4}});
  REQUIRE(wide->tokenizer_name() == "some|name");

  std::filesystem::remove(files.path + ".metadata");
  REQUIRE(files.open()->tokenizer_name().empty());
}

TEST_CASE("datatrove: no documents") {
  DatatroveFiles files;
  write_file(files.path, "");
  write_file(files.path + ".index", "");
  write_file(files.path + ".metadata", "gpt2|4\n0\n");
  REQUIRE(files.open()->token_count() == 0);
}

TEST_CASE("datatrove: what does not fit together is refused") {
  DatatroveFiles files;
  SECTION("no index") {
    std::filesystem::remove(files.path + ".index");
    REQUIRE(contains(files.refusal(), "there is no"));
  }
  SECTION("no tokens") {
    std::filesystem::remove(files.path);
    files.refusal();
  }
  SECTION("an index of another size") {
    write_file(files.path + ".index", datatrove_numbers({3, 3, 5}, 8) + "x");
    REQUIRE(contains(files.refusal(), "multiple of 8"));
  }
  SECTION("ends that fall") {
    write_file(files.path + ".index", datatrove_numbers({3, 2, 5}, 8));
    REQUIRE(contains(files.refusal(), "document 1 ends at token 2"));
  }
  SECTION("an end behind the file") {
    write_file(files.path + ".index", datatrove_numbers({3, 3, 6}, 8));
    REQUIRE(contains(files.refusal(), "document 2 ends at token 6"));
  }
  SECTION("an end that is negative or overflows") {
    const uint64_t end = GENERATE(UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 62);
    write_file(files.path + ".index", datatrove_numbers({end}, 8));
    REQUIRE(contains(files.refusal(), "document 0 ends at token " + std::to_string(end)));
  }
  SECTION("tokens that are no document's") {
    write_file(files.path, datatrove_numbers({1, 2, 3, 4, 5, 6}, 2));
    REQUIRE(contains(files.refusal(), "12 bytes, but the 5 tokens of its index take 10 or 20"));
  }
  SECTION("another width") {
    write_file(files.path + ".metadata", "gpt2|4\n5\n");
    REQUIRE(contains(files.refusal(), "4 bytes per token"));
  }
  SECTION("another number of tokens") {
    write_file(files.path + ".metadata", "gpt2|2\n6\n");
    REQUIRE(contains(files.refusal(), "6 tokens"));
  }
  SECTION("no description at all") {
    write_file(files.path + ".metadata", std::string(2 << 20, 'x'));
    REQUIRE(contains(files.refusal(), "too long"));
  }
}

TEST_CASE("datatrove: an id beyond int32 is never handed to a model") {
  DatatroveFiles files;
  write_file(files.path, datatrove_numbers({1, 2, 3, 0xFFFFFFFF, 4}, 4));
  std::filesystem::remove(files.path + ".metadata");
  const auto dataset = files.open();
  REQUIRE(is_bad_input([&] {
    data::Sampler({dataset.get()},
                  {.sequence_length = 2, .validation_fraction = 0, .vocabulary = 100});
  }));
}

TEST_CASE("datatrove: whatever is spoilt, what is read is there") {
  DatatroveFiles files;
  base::Random random(5);
  std::vector<std::string> names = {files.path, files.path + ".index", files.path + ".metadata"};
  std::vector<std::string> whole;
  for (const std::string& name : names) whole.push_back(read_file(name));
  int refused = 0;
  for (int i = 0; i < 600; ++i) {
    const size_t which = random.below(3);
    std::string spoilt = whole[which];
    if (i % 2 == 0) spoilt.resize(random.below(spoilt.size()));
    if (i % 2 == 1) spoilt[random.below(spoilt.size())] ^= char(1 << random.below(8));
    write_file(names[which], spoilt);
    const base::Error error = error_of([&] { datatrove_documents(*files.open()); });
    REQUIRE((error.code() == base::ExitCode::kDone || error.code() == base::ExitCode::kBadInput));
    refused += error.code() == base::ExitCode::kBadInput;
    write_file(names[which], whole[which]);
  }
  REQUIRE(refused > 200);
}
