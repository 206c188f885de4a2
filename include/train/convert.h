// `atoll convert`: checkpoints to and from the folders of Hugging Face's transformers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/hugging_face.h"

namespace train {

struct ExportOptions {
  std::string checkpoint;  // A checkpoint's folder, or a run directory (then the newest).
  std::string folder;
  std::string which;  // outer | inner; empty: outer if there is one.
  checkpoint::NumberFormat numbers = checkpoint::NumberFormat::kFloat32;
  int64_t shard_bytes_max = checkpoint::HuggingFaceOptions{}.shard_bytes_max;
};
struct ExportReport {
  checkpoint::HuggingFaceReport files;
  int64_t step = 0;
  std::string which;      // outer | inner
  std::string tokenizer;  // Its name; empty: none was written.
};
// Throws as write_hugging_face() does, and as checkpoint::Reader.
ExportReport export_checkpoint(base::Storage& storage, const ExportOptions& options,
                               const checkpoint::ConversionProgress& progress);

struct ImportOptions {
  std::string folder;
  std::string checkpoint;  // The folder that becomes one; is not there.
  // Of a row; 0: what the model was made for, but at most kSequenceLengthDefault, for memory is
  // planned for whole rows.
  int64_t sequence_length = 0;
  static constexpr int64_t kSequenceLengthDefault = 8192;
};
struct ImportReport {
  int64_t parameters = 0;
  int64_t bytes = 0;
  int64_t sequence_length = 0;
  int64_t sequence_length_max = 0;  // What the model was made for.
  bool is_tied = false;  // The head is a copy of the embedding, and is trained apart from here on.
  std::vector<std::string> number_formats;
  std::string tokenizer;          // Its name; empty: none was found.
  std::string tokenizer_problem;  // Why it cannot be used here; it is kept all the same.
};
// A checkpoint of step 0 without moments. Throws as HuggingFaceModel::open() and
// checkpoint::save_as() do.
ImportReport import_model(base::Storage& storage, const ImportOptions& options,
                          const checkpoint::ConversionProgress& progress);

// The `model` section of a run's config for a checkpoint, a run directory, or a folder of
// transformers, as JSON.
std::string model_section(base::Storage& storage, const std::string& path);

}  // namespace train
