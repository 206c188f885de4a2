// Method: the names of documents are computed a second time over all tokens at once, and the places
// of the extremes are put where pieces begin and end.
#include "data/dataset_content.h"

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

TEST_CASE("content: a document's name is its length and its checksum, in any token type") {
  MemoryDataset::Documents documents = {{7, 300, 7}, {}, std::vector<int32_t>(40000)};
  for (size_t i = 0; i < documents[2].size(); ++i) documents[2][i] = int32_t(i * i % 997);
  std::vector<data::DocumentName> names;
  const MemoryDataset in_memory(documents);
  const data::DatasetContent content =
      data::read_content(in_memory, [&](int64_t document, data::DocumentName name) {
        REQUIRE(document == int64_t(names.size()));
        names.push_back(name);
      });
  REQUIRE(names.size() == 3);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto bytes = std::as_bytes(std::span(documents[i]));
    REQUIRE(names[i] == (uint64_t(documents[i].size()) << 32 | base::crc32c(bytes)));
  }
  REQUIRE(content.digest == base::sha256(std::as_bytes(std::span(names))));

  test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  for (const int64_t vocabulary : {1000, 100000}) {  // uint16 and int32.
    const std::string prefix = folder.file(fmt::format("of{}", vocabulary));
    const auto writer = data::TokenDatasetWriter::create(
        *storage, {.prefix = prefix, .vocabulary = vocabulary, .tokenizer_name = "test"});
    for (const auto& document : documents) writer->add_document(document);
    writer->finish();
    const auto on_disk = data::TokenDataset::open(*storage, prefix);
    REQUIRE(data::read_content(*on_disk).digest == content.digest);
  }
}

TEST_CASE("content: the smallest and the largest id, and where they are first") {
  MemoryDataset::Documents documents = {{}, {5, 5}, std::vector<int32_t>(50000, 6), {9, 2, 9, 2}};
  const size_t large = GENERATE(0, 16383, 16384, 49999);
  documents[2][large] = 10;
  documents[2][(large + 1) % 50000] = 1;
  const data::DatasetContent content = data::read_content(MemoryDataset(documents));
  REQUIRE(content.largest.id == 10);
  REQUIRE(content.largest.document == 2);
  REQUIRE(content.largest.position == int64_t(large));
  REQUIRE(content.smallest.id == 1);
  REQUIRE(content.smallest.document == 2);
  REQUIRE(content.smallest.position == int64_t((large + 1) % 50000));
  REQUIRE(data::read_content(MemoryDataset(MemoryDataset::Documents(2))).largest.document == -1);
}
