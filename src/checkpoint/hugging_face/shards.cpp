#include "checkpoint/hugging_face/shards.h"

#include <fmt/format.h>
#include <set>

#include "base/json.h"
#include "checkpoint/manifest.h"

namespace checkpoint {
namespace {

constexpr const char* kOneFile = "model.safetensors";

int64_t byte_count(const TensorSource& tensor, NumberFormat numbers) {
  return tensor.shape.element_count() * bytes_per_number(numbers);
}

base::Error bad_folder(const std::string& path, const std::string& found) {
  return base::bad_input(fmt::format("{}: {}", path, found), "is the download complete?");
}

// Which file each tensor is in.
std::map<std::string, std::string> read_index(base::Storage& storage, const std::string& path) {
  const auto document = base::JsonValue::parse(storage.read_text(path));
  if (!document) throw bad_folder(path, document.reason());
  const auto map = document->get("weight_map");
  if (!map) throw bad_folder(path, map.reason());
  if (!map->is_object()) throw bad_folder(path, map->unexpected("an object").reason);
  std::map<std::string, std::string> files;
  for (const std::string& tensor : map->keys()) {
    const auto value = map->get(tensor);
    const auto file = value ? value->as_string() : base::Result<std::string>(base::Failure{""});
    if (!file || !is_file_name(*file))
      throw bad_folder(path, fmt::format("weight_map: {} has no name of a file", tensor));
    files[tensor] = *file;
  }
  return files;
}

void add_file(base::Storage& storage, const std::string& path, MappedShards& shards) {
  shards.files.push_back(storage.map(path));
  for (auto& [name, view] : parse_safetensors(shards.files.back()->bytes(), path)) {
    if (!shards.tensors.emplace(name, std::move(view)).second)
      throw bad_folder(path, fmt::format("the tensor {} is in another file as well", name));
  }
}

base::Error no_weights(base::Storage& storage, const std::string& folder) {
  for (const std::string& name : storage.list(folder)) {
    if (!name.ends_with(".bin") && !name.ends_with(".pt") && !name.ends_with(".pth") &&
        !name.ends_with(".gguf"))
      continue;
    return base::bad_input(
        fmt::format("{}: there is no {}, but {}", folder, kOneFile, name),
        "only safetensors are read, which cannot execute anything: transformers converts with "
        "model.save_pretrained(DIR)");
  }
  return bad_folder(folder, fmt::format("there is neither {} nor {}", kOneFile, kIndexName));
}

}  // namespace

std::vector<FileSource> cut_into_shards(const std::vector<TensorSource>& tensors,
                                        NumberFormat numbers, int64_t shard_bytes_max) {
  std::vector<FileSource> shards;
  int64_t bytes = 0;
  for (const TensorSource& tensor : tensors) {
    const int64_t added = byte_count(tensor, numbers);
    if (shards.empty() || bytes + added > shard_bytes_max) {
      shards.push_back({.numbers = numbers});
      bytes = 0;
    }
    shards.back().tensors.push_back(tensor);
    bytes += added;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = shards.size() == 1
                         ? kOneFile
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

std::string write_index(const std::vector<FileSource>& shards) {
  int64_t bytes = 0;
  for (const FileSource& shard : shards)
    for (const TensorSource& tensor : shard.tensors) bytes += byte_count(tensor, shard.numbers);
  base::JsonWriter out(2);
  out.begin_object().key("metadata").begin_object().field("total_size", bytes).end_object();
  out.key("weight_map").begin_object();
  for (const FileSource& shard : shards)
    for (const TensorSource& tensor : shard.tensors) out.field(tensor.name, shard.name);
  out.end_object().end_object();
  return out.text() + "\n";
}

MappedShards map_shards(base::Storage& storage, const std::string& folder) {
  MappedShards shards;
  const std::string index = folder + "/" + kIndexName;
  if (!storage.exists(index)) {
    const std::string path = folder + "/" + kOneFile;
    if (!storage.exists(path)) throw no_weights(storage, folder);
    add_file(storage, path, shards);
    return shards;
  }
  const auto files = read_index(storage, index);
  std::set<std::string> names;
  for (const auto& [tensor, file] : files) names.insert(file);
  for (const std::string& name : names) {
    const std::string path = folder + "/" + name;
    if (!storage.exists(path)) throw bad_folder(path, "the shard is missing");
    add_file(storage, path, shards);
  }
  for (const auto& [tensor, file] : files) {
    if (!shards.tensors.contains(tensor))
      throw bad_folder(folder + "/" + file,
                       fmt::format("the tensor {}, which the index names, is not there", tensor));
  }
  return shards;
}

}  // namespace checkpoint
