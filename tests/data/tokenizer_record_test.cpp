// What is kept of a tokenizer makes the same one again.
#include "data/tokenizer_record.h"

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

std::string sample_tokenizer(const std::string& name) {
  return std::string(ATOLL_SOURCE_ROOT) + "/tests/data/tokenizers/" + name + ".json";
}

class PreparedData {
 public:
  void write(const std::string& tokenizer, const data::TokenizerOptions& options = {}) {
    const auto made = data::make_tokenizer(*disk, tokenizer, options);
    const auto writer =
        data::TokenDatasetWriter::create(*disk, {.prefix = prefix(),
                                                 .vocabulary = made->vocabulary(),
                                                 .tokenizer_name = made->name(),
                                                 .tokenizer_definition = made->definition(),
                                                 .begin_id = made->begin_id(),
                                                 .end_id = made->end_id()});
    writer->add_document(made->encode("a text"));
    writer->finish();
  }
  data::TokenizerRecord record() {
    return data::tokenizer_of(*disk, *data::TokenDataset::open(*disk, prefix()));
  }
  std::string prefix() const { return folder_.file("corpus"); }

  const std::unique_ptr<base::Storage> disk = base::make_disk_storage();

 private:
  const test::TemporaryFolder folder_;
};

}  // namespace

TEST_CASE("tokenizer record: what prepare left makes the same tokenizer") {
  PreparedData data;
  for (const char* name : {"gpt2", "llama3", "qwen2"}) {
    const std::string path = sample_tokenizer(name);
    data.write(path);
    const data::TokenizerRecord record = data.record();
    REQUIRE(record.is_whole());
    const auto first = data::make_tokenizer(*data.disk, path);
    const auto second = data::make_tokenizer(record, "somewhere");
    REQUIRE(data::record_of(*second) == record);
    REQUIRE(data::record_of(*second) == data::record_of(*first));
    REQUIRE(second->encode("Grüße, 12345 Welten!") == first->encode("Grüße, 12345 Welten!"));
  }
}

TEST_CASE("tokenizer record: ends that were chosen come back") {
  PreparedData data;
  data.write(sample_tokenizer("qwen2"), {.end_token = "<|im_end|>"});
  const auto record = data.record();
  REQUIRE(record.begin_id == data::Tokenizer::kNoId);
  const auto tokenizer = data::make_tokenizer(record, "somewhere");
  REQUIRE(tokenizer->begin_id() == data::Tokenizer::kNoId);
  REQUIRE(tokenizer->end_id() == record.end_id);
  REQUIRE(tokenizer->end_id() !=
          data::make_tokenizer(*data.disk, sample_tokenizer("qwen2"))->end_id());

  data.write(sample_tokenizer("llama3"), {.begin_token = "none"});
  REQUIRE(data.record().begin_id == data::Tokenizer::kNoId);
  REQUIRE(data.record().end_id >= 0);
}

TEST_CASE("tokenizer record: bytes need no file, and unknown data have none") {
  PreparedData data;
  data.write("bytes");
  REQUIRE(data.record() == data::bytes_record());
  REQUIRE(data.record().is_whole());
  std::filesystem::remove(data.prefix() + ".json");
  REQUIRE_FALSE(data.record().is_whole());

  data.write(sample_tokenizer("gpt2"));
  std::filesystem::remove(data.prefix() + ".tokenizer.json");
  REQUIRE_FALSE(data.record().is_whole());
  REQUIRE(data.record().name == "gpt2.json");
}

TEST_CASE("tokenizer record: another file in the place of the tokenizer is found") {
  PreparedData data;
  data.write(sample_tokenizer("gpt2"));
  write_file(data.prefix() + ".tokenizer.json", read_file(sample_tokenizer("llama3")));
  const auto error = error_of([&] { data.record(); });
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), "corpus.tokenizer.json is not the tokenizer"));
}

TEST_CASE("tokenizer record: an end that the tokenizer does not have is refused") {
  const auto disk = base::make_disk_storage();
  auto record = data::record_of(*data::make_tokenizer(*disk, sample_tokenizer("gpt2")));
  record.end_id = 100'000;
  const auto error = error_of([&] { data::make_tokenizer(record, "a checkpoint"); });
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), "a checkpoint"));
  REQUIRE(contains(error.what(), "100000"));
}
