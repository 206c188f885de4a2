// One run, one tokenizer: of the config, of each dataset, and of what the run goes on from.
#include "train/run_tokenizer.h"

#include "data/fixture.h"
#include "support/catch.h"

namespace {

std::string tokenizer_file(const std::string& name) {
  return std::string(ATOLL_SOURCE_ROOT) + "/tests/data/tokenizers/" + name + ".json";
}

class Sources {
 public:
  Sources() { config.model.vocabulary = 1000; }

  // A dataset made with the tokenizer; with "unknown" none says how.
  void add(const std::string& tokenizer, const data::TokenizerOptions& options = {}) {
    const std::string prefix = folder_.file("data") + std::to_string(datasets_.size());
    const bool is_known = tokenizer != "unknown";
    const auto made = data::make_tokenizer(*disk, is_known ? tokenizer : "bytes", options);
    const auto writer =
        data::TokenDatasetWriter::create(*disk, {.prefix = prefix,
                                                 .vocabulary = made->vocabulary(),
                                                 .tokenizer_name = made->name(),
                                                 .tokenizer_definition = made->definition(),
                                                 .begin_id = made->begin_id(),
                                                 .end_id = made->end_id()});
    writer->add_document(made->encode("text"));
    writer->finish();
    if (!is_known) std::filesystem::remove(prefix + ".json");
    datasets_.push_back(data::TokenDataset::open(*disk, prefix));
  }
  data::TokenizerRecord agree(const train::KnownTokenizer& known = {}) {
    std::vector<const data::TokenDataset*> pointers;
    for (const auto& dataset : datasets_) pointers.push_back(dataset.get());
    return train::agree_on_tokenizer(config, *disk, pointers, known);
  }
  std::string refusal(const train::KnownTokenizer& known = {}) {
    const auto error = data_test::error_of([&] { agree(known); });
    return error.code() == base::ExitCode::kBadInput ? error.what() : "";
  }
  data::TokenizerRecord record(const std::string& tokenizer) {
    return data::record_of(*data::make_tokenizer(*disk, tokenizer));
  }

  train::RunConfig config;
  const std::unique_ptr<base::Storage> disk = base::make_disk_storage();

 private:
  const test::TemporaryFolder folder_;
  std::vector<std::unique_ptr<data::TokenDataset>> datasets_;
};

}  // namespace

TEST_CASE("run tokenizer: auto is what lies beside the data") {
  Sources sources;
  sources.add(tokenizer_file("llama3"));
  sources.add(tokenizer_file("llama3"));
  sources.add("unknown");
  REQUIRE(sources.agree() == sources.record(tokenizer_file("llama3")));
  Sources bytes;
  bytes.add("bytes");
  REQUIRE(bytes.agree() == data::bytes_record());
}

TEST_CASE("run tokenizer: data that say nothing take the config's, or the checkpoint's, or none") {
  Sources sources;
  sources.add("unknown");
  REQUIRE_FALSE(sources.agree().is_whole());
  const auto gpt2 = sources.record(tokenizer_file("gpt2"));
  REQUIRE(sources.agree({.record = gpt2, .where = "the checkpoint"}) == gpt2);
  sources.config.data.tokenizer = tokenizer_file("qwen2");
  REQUIRE(sources.agree() == sources.record(tokenizer_file("qwen2")));
  sources.config.data.tokenizer = "bytes";
  REQUIRE(sources.agree() == data::bytes_record());
}

TEST_CASE("run tokenizer: whatever differs is refused by name") {
  Sources mixed;
  mixed.add(tokenizer_file("gpt2"));
  mixed.add("bytes");
  REQUIRE(data_test::contains(mixed.refusal(), "data0 has gpt2.json"));
  REQUIRE(data_test::contains(mixed.refusal(), "data1 has bytes"));

  Sources ends;
  ends.add(tokenizer_file("llama3"));
  ends.add(tokenizer_file("llama3"), {.begin_token = "none"});
  REQUIRE(data_test::contains(ends.refusal(), "begin id none"));

  Sources one;
  one.add(tokenizer_file("llama3"));
  REQUIRE(
      data_test::contains(one.refusal({.record = data::bytes_record(), .where = "the checkpoint"}),
                          "the checkpoint has bytes"));
  one.config.data.tokenizer = tokenizer_file("gpt2");
  REQUIRE(data_test::contains(one.refusal(), "data.tokenizer has gpt2.json"));
  one.config.data.tokenizer = tokenizer_file("llama3");
  REQUIRE(one.refusal().empty());
}

TEST_CASE("run tokenizer: of equal definitions the data's ends count") {
  Sources sources;
  sources.add(tokenizer_file("llama3"), {.begin_token = "none"});
  sources.config.data.tokenizer = tokenizer_file("llama3");
  REQUIRE(sources.agree().begin_id == data::Tokenizer::kNoId);
}

TEST_CASE("run tokenizer: what checkpoints said of any data is not believed") {
  const checkpoint::Manifest before{.tokenizer = {.name = "bytes"}};
  REQUIRE_FALSE(train::known_tokenizer(before, "the checkpoint").record.is_whole());
  const checkpoint::Manifest now{.tokenizer = data::bytes_record()};
  REQUIRE(train::known_tokenizer(now, "the checkpoint").record.is_whole());
}

TEST_CASE("run tokenizer: the config's must fit the model, and must be there") {
  Sources sources;
  sources.add("unknown");
  sources.config.data.tokenizer = tokenizer_file("gpt2");
  sources.config.model.vocabulary = 800;
  REQUIRE(data_test::contains(sources.refusal(), "ids, but model.vocabulary is 800"));
  sources.config.data.tokenizer = "/nowhere/tokenizer.json";
  REQUIRE(data_test::contains(sources.refusal(), "/nowhere/tokenizer.json"));
}
