// What is saved is read back bit for bit; which checkpoints are kept, listed and chosen.
#include <set>

#include "quick_folder.h"
#include "sample.h"
#include "support/catch.h"

using namespace checkpoint_test;

namespace {

using Names = std::vector<std::string>;

void refuse_warning(const std::string& warning) {
  throw std::runtime_error("unexpected warning: " + warning);
}

// The names of the folders that list() gives.
Names list_names(base::Storage& disk, const std::string& run) {
  Names names;
  for (const std::string& path : checkpoint::list(disk, run)) {
    REQUIRE(path.starts_with(run + "/checkpoints/"));
    names.push_back(path.substr(path.rfind('/') + 1));
  }
  return names;
}

}  // namespace

TEST_CASE("Everything comes back bit for bit", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const Sample sample = make_sample(1200);
  const auto report = save(*disk, folder.path(), sample);
  REQUIRE(report.directory == folder.file("checkpoints/step-00001200"));

  const auto reader = checkpoint::Reader::open(*disk, report.directory);
  REQUIRE(equals(*reader, sample));
  REQUIRE(!equals(*reader, make_sample(1200, 2)));
  REQUIRE(!reader->has_file("absent.safetensors"));
  REQUIRE(!reader->has_file("manifest.json"));

  int64_t bytes = 0;
  const Names files = disk->list(report.directory);
  REQUIRE(files == Names{"empty.safetensors", "manifest.json", "outer-0.safetensors",
                         "parameters.safetensors", "tokenizer.json"});
  for (const std::string& file : files)
    bytes += int64_t(disk->map(report.directory + "/" + file)->bytes().size());
  REQUIRE(report.bytes == bytes);
  REQUIRE(disk->list(folder.file("checkpoints")) == Names{"step-00001200"});
}

TEST_CASE("A checkpoint without tensors, fragments and texts is one too", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const auto report = save(*disk, folder.path(), Sample{});
  REQUIRE(equals(*checkpoint::Reader::open(*disk, report.directory), Sample{}));
}

TEST_CASE("Parts of a tensor are read at their place", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const Sample sample = make_sample(1);
  const auto reader = checkpoint::Reader::open(*disk, save(*disk, folder.path(), sample).directory);
  const auto& expected = sample.files.at("outer-0.safetensors").at("outer.momentum").elements;
  for (int64_t first = 0; first <= 33; ++first) {
    std::vector<float> part(size_t(33 - first) / 2);
    reader->read("outer-0.safetensors", "outer.momentum", {33}, first, part);
    REQUIRE((part.empty() ||
             std::memcmp(part.data(), &expected[size_t(first)], part.size() * sizeof(float)) == 0));
  }
}

TEST_CASE("What is not in the checkpoint is bad input that names it", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const auto reader =
      checkpoint::Reader::open(*disk, save(*disk, folder.path(), make_sample(1)).directory);
  std::vector<float> elements(1);
  const auto read = [&](const std::string& file, const std::string& tensor,
                        const backend::Shape& shape) {
    return bad_input_of([&] { reader->read(file, tensor, shape, 0, elements); });
  };
  REQUIRE(contains(read("absent.safetensors", "scalar", {}), "absent.safetensors"));
  REQUIRE(contains(read("parameters.safetensors", "scalar", {}),
                   "parameters.safetensors: there is no tensor \"scalar\""));
  REQUIRE(contains(read("parameters.safetensors", "blocks.0.qkv", {5, 3}),
                   "parameters.safetensors: blocks.0.qkv: expected F32 [5, 3], found F32 [3, 5]"));
  REQUIRE(contains(read("parameters.safetensors", "blocks.0.qkv", {15}), "expected F32 [15]"));
  REQUIRE(contains(bad_input_of([&] { reader->tensor_names("absent.safetensors"); }),
                   "absent.safetensors"));
}

TEST_CASE("The newest ones are kept", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  for (int64_t step = 1; step <= 5; ++step) {
    save(*disk, folder.path(), make_sample(step), 3);
    REQUIRE(int64_t(checkpoint::list(*disk, folder.path()).size()) == std::min<int64_t>(step, 3));
  }
  REQUIRE(list_names(*disk, folder.path()) ==
          Names{"step-00000003", "step-00000004", "step-00000005"});
  save(*disk, folder.path(), make_sample(6), 1);
  REQUIRE(disk->list(folder.file("checkpoints")) == Names{"step-00000006"});
  REQUIRE(equals(*checkpoint::open_newest(*disk, folder.path(), refuse_warning), make_sample(6)));
}

TEST_CASE("A run that went back removes neither its new checkpoint nor later ones",
          "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  for (const int64_t step : {10, 20, 30}) save(*disk, folder.path(), make_sample(step));
  save(*disk, folder.path(), make_sample(15), 1);
  REQUIRE(list_names(*disk, folder.path()) ==
          Names{"step-00000015", "step-00000020", "step-00000030"});
}

TEST_CASE("Steps are ordered as numbers, also beyond eight digits", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  for (const int64_t step : {1'000'000'000, 999, 200'000'000})
    save(*disk, folder.path(), make_sample(step));
  REQUIRE(list_names(*disk, folder.path()) ==
          Names{"step-00000999", "step-200000000", "step-1000000000"});
  REQUIRE(equals(*checkpoint::open_newest(*disk, folder.path(), refuse_warning),
                 make_sample(1'000'000'000)));
}

TEST_CASE("A second checkpoint of a step takes the place of the first", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  save(*disk, folder.path(), make_sample(4));
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const auto report = save(*disk, folder.path(), make_sample(8, seed));
    REQUIRE(checkpoint::list(*disk, folder.path()) ==
            Names{folder.file("checkpoints/step-00000004"), report.directory});
    REQUIRE(equals(*checkpoint::open_newest(*disk, folder.path(), refuse_warning),
                   make_sample(8, seed)));
  }
}

TEST_CASE("Only folders of the exact form are listed or removed", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const Names foreign = {"best",
                         "best.partial",
                         "step-1",
                         "step-000000001",
                         "step--0000001",
                         "step-00000001.0",
                         "step-00000001.1",
                         "step-00000001.-2",
                         "step-",
                         "step-00000001.2x",
                         "step-x.partial",
                         "step-00000001.99999999999999",
                         ".partial",
                         "step-00000001.2.3",
                         "step-99999999999999999999"};
  for (const std::string& name : foreign)
    disk->make_directories(folder.file("checkpoints/" + name));
  REQUIRE(checkpoint::list(*disk, folder.path()).empty());
  save(*disk, folder.path(), make_sample(1), 1);
  save(*disk, folder.path(), make_sample(2), 1);
  REQUIRE(list_names(*disk, folder.path()) == Names{"step-00000002"});
  for (const std::string& name : foreign) REQUIRE(disk->exists(folder.file("checkpoints/" + name)));
}

TEST_CASE("A run without checkpoints has no newest one", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  REQUIRE(checkpoint::list(*disk, folder.path()).empty());
  REQUIRE(checkpoint::open_newest(*disk, folder.path(), refuse_warning) == nullptr);
}

TEST_CASE("A source that fails leaves nothing on the disk", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  save(*disk, folder.path(), make_sample(1));
  const checkpoint::FileSource broken = {
      .name = "parameters.safetensors",
      .tensors = {{.name = "x", .shape = {4}, .read = [](int64_t, std::span<float>) {
                     throw base::resource_lost("the device is gone");
                   }}}};
  REQUIRE_THROWS_AS(
      checkpoint::save(*disk, {.run_directory = folder.path()}, {.step = 2}, {broken}),
      base::Error);
  REQUIRE(disk->list(folder.file("checkpoints")) == Names{"step-00000001"});
}

TEST_CASE("A manifest that would not read back is refused before anything is replaced",
          "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  Sample sample = make_sample(1);
  save(*disk, folder.path(), sample);
  SECTION("text that is not UTF-8") {
    sample.manifest.tokenizer.name = "\xff";
  }
  SECTION("a version beyond what JSON integers hold") {
    sample.manifest.outer[0].version = ~uint64_t{0};
  }
  REQUIRE(contains(bad_input_of([&] { save(*disk, folder.path(), sample); }), "manifest.json"));
  REQUIRE(equals(*checkpoint::open_newest(*disk, folder.path(), refuse_warning), make_sample(1)));
}
