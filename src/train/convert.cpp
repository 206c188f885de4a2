#include "train/convert.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "train/open_checkpoint.h"

namespace train {
namespace {

std::string file_of(const checkpoint::Reader& reader, const std::string& which) {
  if (which.empty()) return trained_file(reader);
  if (which == "inner") return kParametersFile;
  if (reader.has_file(kOuterParametersFile)) return kOuterParametersFile;
  throw base::bad_input("the checkpoint has no outer parameters: it is of a solo run",
                        "leave out --which, or choose inner");
}

std::string to_text(const model::ModelConfig& model, int indent) {
  return base::write_config(
      [&, copy = model](base::ConfigVisitor& v) mutable { model::describe(v, copy); }, indent);
}

// Told of every piece that is read.
std::vector<checkpoint::TensorSource> watched(std::vector<checkpoint::TensorSource> tensors,
                                              const checkpoint::ConversionProgress& progress) {
  if (!progress) return tensors;
  int64_t total = 0;
  for (const auto& tensor : tensors) total += tensor.shape.element_count() * int64_t{sizeof(float)};
  const auto done = std::make_shared<int64_t>(0);
  for (auto& tensor : tensors) {
    tensor.read = [read = std::move(tensor.read), done, total, progress](int64_t first,
                                                                         std::span<float> out) {
      read(first, out);
      progress(*done += int64_t(out.size_bytes()), total);
    };
  }
  return tensors;
}

int64_t choose_length(const ImportOptions& options, int64_t maximum) {
  if (options.sequence_length == 0) return std::min(maximum, ImportOptions::kSequenceLengthDefault);
  return options.sequence_length;
}

void require_absent(base::Storage& storage, const std::string& path) {
  if (!storage.exists(path)) return;
  throw base::bad_input(fmt::format("{}: there is something already", path),
                        "choose another name, or remove it");
}

}  // namespace

ExportReport export_checkpoint(base::Storage& storage, const ExportOptions& options,
                               const checkpoint::ConversionProgress& progress) {
  const auto reader = open_checkpoint(storage, options.checkpoint);
  const model::ModelConfig model = model_of(*reader);
  const std::string file = file_of(*reader, options.which);
  // Checkpoints of before do not say the ids of bytes.
  const bool is_bytes = reader->manifest().tokenizer.name == data::kBytesTokenizer;
  const data::TokenizerRecord tokenizer =
      is_bytes ? data::bytes_record() : reader->manifest().tokenizer;
  const auto files = checkpoint::write_hugging_face(
      storage,
      {.folder = options.folder,
       .numbers = options.numbers,
       .shard_bytes_max = options.shard_bytes_max,
       .progress = progress},
      model, tokenizer, tensor_sources(*reader, file, model::make_layout(model)));
  return {.files = files,
          .step = reader->manifest().step,
          .which = file == kOuterParametersFile ? "outer" : "inner",
          .tokenizer = tokenizer.is_whole() ? tokenizer.name : ""};
}

ImportReport import_model(base::Storage& storage, const ImportOptions& options,
                          const checkpoint::ConversionProgress& progress) {
  require_absent(storage, options.checkpoint);
  const auto folder = checkpoint::HuggingFaceModel::open(storage, options.folder);
  model::ModelConfig model = folder->config();
  const data::TokenizerRecord& tokenizer = folder->tokenizer();
  ImportReport report{.parameters = model::parameter_count(model),
                      .sequence_length_max = model.sequence_length,
                      .is_tied = folder->is_tied(),
                      .number_formats = folder->number_formats(),
                      .tokenizer = tokenizer.is_whole() ? tokenizer.name : "",
                      .tokenizer_problem = folder->tokenizer_problem()};
  report.sequence_length = model.sequence_length = choose_length(options, model.sequence_length);
  const std::string parent = std::filesystem::path(options.checkpoint).parent_path().string();
  if (!parent.empty()) storage.make_directories(parent);
  const auto saved = checkpoint::save_as(
      storage, options.checkpoint,
      {.model_config = to_text(model, -1),
       .tokenizer = tokenizer,
       .wall_time = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)))},
      {{.name = kParametersFile, .tensors = watched(folder->tensors(), progress)}});
  report.bytes = saved.bytes;
  return report;
}

std::string model_section(base::Storage& storage, const std::string& path) {
  if (is_checkpoint(storage, path)) return to_text(model_of(*open_checkpoint(storage, path)), 2);
  return to_text(checkpoint::HuggingFaceModel::open(storage, path)->config(), 2);
}

}  // namespace train
