// Native tensors to a folder of transformers. Everything hangs on one rename: until all files were
// written and read back, the folder is called DIR.partial.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <map>

#include "base/math.h"
#include "checkpoint/hugging_face.h"
#include "checkpoint/hugging_face/config_json.h"
#include "checkpoint/hugging_face/shards.h"
#include "checkpoint/hugging_face/tensor_names.h"
#include "checkpoint/hugging_face/tokenizer_files.h"
#include "checkpoint/manifest.h"
#include "checkpoint/partial_folder.h"

namespace checkpoint {
namespace {

constexpr int64_t kPieceElements = base::kMiB;

using Sources = std::map<std::string, const TensorSource*>;

// Every piece of `count` elements, with its place.
template <class Body>
void for_each_piece(int64_t count, const Body& body) {
  for (int64_t first = 0; first < count; first += kPieceElements)
    body(first, std::min(kPieceElements, count - first));
}

bool have_equal_bits(const TensorSource& a, const TensorSource& b) {
  std::vector<float> left, right;
  bool is_equal = true;
  for_each_piece(a.shape.element_count(), [&](int64_t first, int64_t count) {
    if (!is_equal) return;
    left.resize(size_t(count));
    right.resize(size_t(count));
    a.read(first, left);
    b.read(first, right);
    is_equal = std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
  });
  return is_equal;
}

// Parts of our tensors under their names. `on_read` is told of every piece.
std::vector<TensorSource> renamed(const std::vector<HuggingFaceTensor>& tensors,
                                  const Sources& sources,
                                  const std::function<void(int64_t)>& on_read) {
  std::vector<TensorSource> result;
  for (const HuggingFaceTensor& tensor : tensors) {
    const TensorSource& source = *sources.at(tensor.native);
    result.push_back(
        {.name = tensor.name,
         .shape = tensor.shape,
         .read = [&source, begin = tensor.first, on_read](int64_t first, std::span<float> out) {
           source.read(begin + first, out);
           on_read(int64_t(out.size()));
         }});
  }
  return result;
}

// What is on the disk is what was written, and what is read out of it are the numbers that went in.
class ReadBack {
 public:
  ReadBack(base::Storage& storage, std::string folder)
      : storage_(storage), folder_(std::move(folder)) {}

  void require_hashes(const std::map<std::string, FileRecord>& files) const {
    for (const auto& [name, record] : files) {
      const auto file = storage_.map(folder_ + "/" + name);
      const auto bytes = file->bytes();
      if (int64_t(bytes.size()) != record.bytes || base::sha256(bytes) != record.sha256)
        throw not_kept(name, "its bytes");
    }
  }
  void require_model(const model::ModelConfig& model, bool is_tied) const {
    const auto read = HuggingFaceModel::open(storage_, folder_);
    const auto shape = [](model::ModelConfig config) {
      config.z_loss_weight = 0;
      return base::write_config([&](base::ConfigVisitor& v) { model::describe(v, config); });
    };
    if (shape(read->config()) != shape(model) || read->is_tied() != is_tied)
      throw not_kept("config.json", "its meaning");
  }

 private:
  base::Error not_kept(const std::string& name, const char* what) const {
    return base::resource_lost(fmt::format("{}/{}: the disk has not kept {}", folder_, name, what),
                               "the disk may be broken: see the kernel's log");
  }

  base::Storage& storage_;
  const std::string folder_;
};

void require_free(base::Storage& storage, const std::string& folder) {
  if (!storage.exists(folder)) return;
  std::error_code error;
  if (std::filesystem::is_directory(folder, error) && storage.list(folder).empty()) return;
  throw base::bad_input(fmt::format("{}: there is something already", folder),
                        "choose another name, or remove it");
}

}  // namespace

HuggingFaceReport write_hugging_face(base::Storage& storage, const HuggingFaceOptions& options,
                                     const model::ModelConfig& model,
                                     const data::TokenizerRecord& tokenizer,
                                     const std::vector<TensorSource>& tensors) {
  const std::string folder = without_slash(options.folder);
  require_free(storage, folder);
  Sources sources;
  for (const TensorSource& tensor : tensors) sources[tensor.name] = &tensor;
  std::vector<HuggingFaceTensor> names = hugging_face_tensors(model);
  HuggingFaceReport report;
  report.is_tied = have_equal_bits(*sources.at("head.head"), *sources.at("embedding.embedding"));
  if (report.is_tied) names.pop_back();
  for (const HuggingFaceTensor& tensor : names) report.parameters += tensor.shape.element_count();

  const int64_t total = report.parameters * bytes_per_number(options.numbers);
  int64_t done = 0;
  const auto on_read = [&](int64_t elements) {
    done += elements * bytes_per_number(options.numbers);
    if (options.progress) options.progress(done, total);
  };
  const auto shards =
      cut_into_shards(renamed(names, sources, on_read), options.numbers, options.shard_bytes_max);
  report.shards = int64_t(shards.size());

  storage.remove_all(folder + kPartialSuffix);
  PartialFolder partial(storage, folder);
  std::map<std::string, FileRecord> files;
  const auto add_text = [&](const char* name, const std::string& text) {
    const auto bytes = std::as_bytes(std::span(text));
    storage.write_atomically(partial.path() + "/" + name, bytes);
    files[name] = {.bytes = int64_t(bytes.size()), .sha256 = base::sha256(bytes)};
  };
  for (const FileSource& shard : shards) {
    const auto file = storage.create(partial.path() + "/" + shard.name);
    files[shard.name] = write_safetensors(*file, shard);
    file->commit();
  }
  if (shards.size() > 1) add_text(kIndexName, write_index(shards));
  if (tokenizer.is_whole()) {
    const std::string text = tokenizer_json(tokenizer);
    add_text(kTokenizerName, text);
    add_text("tokenizer_config.json",
             write_tokenizer_config(tokenizer, text, model.sequence_length));
  }
  add_text("generation_config.json", write_generation_config(tokenizer.begin_id, tokenizer.end_id));
  add_text("config.json", write_config_json({.model = model,
                                             .is_tied = report.is_tied,
                                             .numbers = options.numbers,
                                             .begin_id = tokenizer.begin_id,
                                             .end_id = tokenizer.end_id}));
  const ReadBack read_back(storage, partial.path());
  read_back.require_hashes(files);
  read_back.require_model(model, report.is_tied);
  for (const auto& [name, record] : files) report.bytes += record.bytes;
  partial.publish();
  const std::string parent = std::filesystem::path(folder).parent_path().string();
  storage.sync_directory(parent.empty() ? "." : parent);
  return report;
}

}  // namespace checkpoint
