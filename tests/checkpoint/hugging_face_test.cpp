// Folders of transformers: numbers there and back, and what a crash at any operation leaves.
// tests/integration/hugging_face_test.py has what is refused, and the comparison with transformers.
#include "checkpoint/hugging_face.h"

#include <cstring>

#include "quick_folder.h"
#include "sample.h"
#include "support/catch.h"
#include "support/fault_storage.h"

using namespace checkpoint_test;

namespace {

using Values = std::map<std::string, std::vector<float>>;

model::ModelConfig llama_config() {
  return {.vocabulary = 11,
          .width = 6,
          .layers = 2,
          .heads = 3,
          .kv_heads = 1,
          .head_size = 4,
          .feed_forward = 5,
          .sequence_length = 16,
          .rope_base = 777.5,
          .norm_epsilon = 1e-6};
}

// Awkward bits and all.
Values random_values(const model::ModelConfig& config, uint64_t seed) {
  base::Random random(seed);
  Values values;
  for (const shard::Unit& unit : model::make_layout(config).units)
    for (const auto& tensor : unit.tensors)
      values[tensor.name] = make_tensor(tensor.shape, random).elements;
  return values;
}

// Borrows the values.
std::vector<checkpoint::TensorSource> sources_of(const model::ModelConfig& config,
                                                 const Values& values) {
  std::vector<checkpoint::TensorSource> sources;
  for (const shard::Unit& unit : model::make_layout(config).units) {
    for (const auto& tensor : unit.tensors) {
      const auto read = [&elements = values.at(tensor.name)](int64_t first, std::span<float> out) {
        std::memcpy(out.data(), elements.data() + first, out.size_bytes());
      };
      sources.push_back({.name = tensor.name, .shape = tensor.shape, .read = read});
    }
  }
  return sources;
}

// Read in pieces that fit nothing.
bool holds(base::Storage& storage, const std::string& folder, const Values& values) {
  const auto model = checkpoint::HuggingFaceModel::open(storage, folder);
  for (const checkpoint::TensorSource& tensor : model->tensors()) {
    const std::vector<float>& expected = values.at(tensor.name);
    std::vector<float> found(expected.size());
    for (size_t first = 0; first < found.size(); first += 7) {
      const size_t count = std::min(size_t{7}, found.size() - first);
      tensor.read(int64_t(first), std::span(found).subspan(first, count));
    }
    if (std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("A folder of transformers holds every bit, however it is cut", "[hugging_face]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const model::ModelConfig config = llama_config();
  const Values values = random_values(config, 1);
  for (const int64_t shard_bytes : {int64_t{1}, int64_t{300}, int64_t{1'000'000}}) {
    const std::string path = folder.file("model") + std::to_string(shard_bytes);
    int64_t done = 0, total = 0;
    const auto report = checkpoint::write_hugging_face(
        *disk,
        {.folder = path,
         .shard_bytes_max = shard_bytes,
         .progress = [&](int64_t now, int64_t all) { done = now, total = all; }},
        config, data::bytes_record(), sources_of(config, values));
    REQUIRE(report.parameters == model::parameter_count(config));
    REQUIRE(done == total);
    REQUIRE(total == 4 * report.parameters);
    REQUIRE(report.shards == (shard_bytes == 1 ? 21 : shard_bytes == 300 ? report.shards : 1));
    REQUIRE(holds(*disk, path, values));
    const auto model = checkpoint::HuggingFaceModel::open(*disk, path);
    REQUIRE(model->tokenizer() == data::bytes_record());
    REQUIRE(model->config().rope_base == config.rope_base);
    REQUIRE(model->config().head_size == 4);
  }
}

TEST_CASE("A head that is the embedding stands there once", "[hugging_face]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const model::ModelConfig config = llama_config();
  Values values = random_values(config, 2);
  values["head.head"] = values["embedding.embedding"];
  const auto write = [&](const std::string& path) {
    return checkpoint::write_hugging_face(*disk, {.folder = path}, config, {},
                                          sources_of(config, values));
  };
  const auto tied = write(folder.file("tied"));
  REQUIRE(tied.is_tied);
  REQUIRE(tied.parameters == model::parameter_count(config) - 11 * 6);
  REQUIRE(holds(*disk, folder.file("tied"), values));
  values["head.head"].back() += 1;
  values["head.head"][0] = 1;
  REQUIRE_FALSE(write(folder.file("untied")).is_tied);
  REQUIRE(holds(*disk, folder.file("untied"), values));
}

TEST_CASE("A crash at any operation leaves a whole folder or none, and the next attempt succeeds",
          "[hugging_face]") {
  const auto disk = base::make_disk_storage();
  const model::ModelConfig config = llama_config();
  const Values values = random_values(config, 3);
  for (const test::FaultMode mode : {test::FaultMode::kFail, test::FaultMode::kTorn}) {
    const QuickFolder folder;
    const std::string path = folder.file("model");
    const auto attempt = [&](base::Storage& storage) {
      checkpoint::write_hugging_face(storage, {.folder = path, .shard_bytes_max = 700}, config,
                                     data::bytes_record(), sources_of(config, values));
    };
    test::with_every_fault(*disk, mode, attempt, [&](int64_t) {
      if (disk->exists(path)) {
        REQUIRE(holds(*disk, path, values));
        disk->remove_all(path);
      }
      attempt(*disk);
      REQUIRE(holds(*disk, path, values));
      REQUIRE_FALSE(disk->exists(path + ".partial"));
      disk->remove_all(path);
    });
  }
}

TEST_CASE("A conversion that is stopped leaves nothing", "[hugging_face]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const model::ModelConfig config = llama_config();
  const Values values = random_values(config, 4);
  const auto stop = [](int64_t done, int64_t total) {
    if (done > total / 2) throw base::resource_lost("stopped");
  };
  REQUIRE_THROWS_AS(
      checkpoint::write_hugging_face(*disk, {.folder = folder.file("model"), .progress = stop},
                                     config, {}, sources_of(config, values)),
      base::Error);
  REQUIRE(disk->list(folder.path()).empty());
}

TEST_CASE("A checkpoint by its own name is whole or not there", "[checkpoint]") {
  const auto disk = base::make_disk_storage();
  const Sample sample = make_sample(0);
  for (const test::FaultMode mode : {test::FaultMode::kFail, test::FaultMode::kTorn}) {
    const QuickFolder folder;
    const std::string path = folder.file("imported");
    const auto attempt = [&](base::Storage& storage) {
      checkpoint::save_as(storage, path, sample.manifest, sample.sources());
    };
    test::with_every_fault(*disk, mode, attempt, [&](int64_t) {
      if (disk->exists(path)) {
        REQUIRE(equals(*checkpoint::Reader::open(*disk, path), sample));
        disk->remove_all(path);
      }
      attempt(*disk);
      REQUIRE(equals(*checkpoint::Reader::open(*disk, path), sample));
      REQUIRE_FALSE(disk->exists(path + ".partial"));
      disk->remove_all(path);
    });
  }
}
