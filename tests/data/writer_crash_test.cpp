// Method: a dataset replaces an older one while the disk fails at operation 1, 2, 3 ... After each
// failure there must be the whole old dataset, or none, or the whole new one; never a mixture.
#include "data/fixture.h"
#include "data/prepare.h"
#include "support/catch.h"
#include "support/fault_storage.h"

using namespace data_test;

namespace {

void write_dataset(base::Storage& storage, const std::string& prefix,
                   const std::vector<std::vector<int32_t>>& documents) {
  const auto writer = data::TokenDatasetWriter::create(
      storage,
      {.prefix = prefix, .vocabulary = 100, .tokenizer_name = "t", .tokenizer_definition = "{}"});
  for (const auto& document : documents) writer->add_document(document);
  writer->finish();
}

}  // namespace

TEST_CASE("token dataset writer: a crash at any operation leaves a whole dataset or none") {
  const auto mode = GENERATE(test::FaultMode::kFail, test::FaultMode::kTorn);
  const test::TemporaryFolder folder;
  const std::string prefix = folder.file("data");
  const auto disk = base::make_disk_storage();
  int old_count = 0, none_count = 0, new_count = 0;

  const auto attempt = [&](base::Storage& storage) {
    write_dataset(*disk, prefix, {{1, 2, 3}, {4}});
    write_dataset(storage, prefix, {{5}, {6, 7}, {8, 9, 10, 11}});
  };
  const auto examine = [&](int64_t fail_at) {
    INFO("operation " << fail_at);
    if (!disk->exists(prefix + ".idx")) {
      ++none_count;
      REQUIRE(is_bad_input([&] { data::TokenDataset::open(*disk, prefix); }));
      return;
    }
    const auto dataset = data::TokenDataset::open(*disk, prefix);
    std::vector<int32_t> last(size_t(dataset->document_length(dataset->document_count() - 1)));
    dataset->read(dataset->document_count() - 1, 0, last);
    const bool is_new = dataset->document_count() == 3;
    REQUIRE(last == (is_new ? std::vector<int32_t>{8, 9, 10, 11} : std::vector<int32_t>{4}));
    ++(is_new ? new_count : old_count);
  };
  REQUIRE(test::with_every_fault(*disk, mode, attempt, examine) >= 10);
  REQUIRE(old_count >= 2);
  REQUIRE(none_count >= 5);
  REQUIRE(new_count >= 1);
}

TEST_CASE("prepare: a full disk is a lost resource") {
  const test::TemporaryFolder folder;
  write_file(folder.file("in/a.txt"), "some text");
  const auto disk = base::make_disk_storage();
  const auto tokenizer = data::make_tokenizer(*base::make_disk_storage(), "bytes");
  const data::PrepareOptions options{.inputs = {folder.file("in")},
                                     .output_prefix = folder.file("out/data")};
  for (int64_t fail_at = 1;; ++fail_at) {
    test::FaultStorage storage(*disk, fail_at, test::FaultMode::kFail);
    const base::Error error =
        error_of([&] { data::prepare(storage, *tokenizer, options, nullptr); });
    if (!storage.has_crashed()) {
      REQUIRE(fail_at > 10);
      break;
    }
    REQUIRE(error.code() == base::ExitCode::kResourceLost);
  }
  REQUIRE(data::TokenDataset::open(*disk, options.output_prefix)->token_count() == 11);
}
