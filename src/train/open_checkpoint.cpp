#include "train/open_checkpoint.h"

#include <fmt/format.h>

#include "base/log.h"
#include "data/tokenizer_record.h"

namespace train {
namespace {

bool is_checkpoint_folder(base::Storage& storage, const std::string& path) {
  return storage.exists(path + "/manifest.json");
}

}  // namespace

bool is_checkpoint(base::Storage& storage, const std::string& path) {
  return is_checkpoint_folder(storage, path) || !checkpoint::list(storage, path).empty();
}

std::unique_ptr<checkpoint::Reader> open_checkpoint(base::Storage& storage,
                                                    const std::string& path) {
  if (is_checkpoint_folder(storage, path)) return checkpoint::Reader::open(storage, path);
  auto reader = checkpoint::open_newest(
      storage, path, [](const std::string& text) { base::log_warning("{}", text); });
  if (!reader) {
    throw base::bad_input(
        fmt::format("{}: neither a checkpoint nor a run directory with one", path),
        "name a folder like RUN/checkpoints/step-00001000, or RUN");
  }
  return reader;
}

model::ModelConfig model_of(const checkpoint::Reader& reader) {
  const auto document = base::JsonValue::parse(reader.manifest().model_config);
  if (!document)
    throw base::bad_input(fmt::format("the checkpoint's model config: {}", document.reason()));
  model::ModelConfig config;
  base::read_config(*document, "manifest.json: model_config",
                    [&](base::ConfigVisitor& v) { model::describe(v, config); });
  model::validate(config);
  return config;
}

std::unique_ptr<data::Tokenizer> tokenizer_for(base::Storage& storage,
                                               const checkpoint::Reader& reader,
                                               const std::string& name,
                                               const model::ModelConfig& model) {
  std::unique_ptr<data::Tokenizer> tokenizer;
  if (!name.empty()) {
    tokenizer = data::make_tokenizer(storage, name);
  } else if (const auto& record = reader.manifest().tokenizer; record.is_whole()) {
    tokenizer = data::make_tokenizer(record, "tokenizer.json of the checkpoint");
  } else {
    throw base::bad_input(
        fmt::format("the checkpoint does not say how text becomes tokens (its tokenizer is {})",
                    record.name.empty() ? "not known" : record.name),
        "name it with --tokenizer: bytes, or the path of a tokenizer.json");
  }
  if (tokenizer->vocabulary() <= model.vocabulary) return tokenizer;
  throw base::bad_input(fmt::format("the tokenizer {} has {} ids, but the model knows {}",
                                    tokenizer->name(), tokenizer->vocabulary(), model.vocabulary),
                        "it is another one than the model was trained with");
}

std::string trained_file(const checkpoint::Reader& reader) {
  return reader.has_file(kOuterParametersFile) ? kOuterParametersFile : kParametersFile;
}

std::vector<checkpoint::TensorSource> tensor_sources(const checkpoint::Reader& reader,
                                                     const std::string& file,
                                                     const shard::Layout& layout) {
  std::vector<checkpoint::TensorSource> sources;
  for (const shard::Unit& unit : layout.units) {
    for (const shard::TensorSpec& tensor : unit.tensors) {
      sources.push_back({.name = tensor.name,
                         .shape = tensor.shape,
                         .read = [&reader, file, name = tensor.name, shape = tensor.shape](
                                     int64_t first, std::span<float> out) {
                           reader.read(file, name, shape, first, out);
                         }});
    }
  }
  return sources;
}

}  // namespace train
