// A node's state on disk.
//
//   RUN/checkpoints/step-00001200/
//     parameters.safetensors, optimizer_m.safetensors, ...   fp32 tensors under their names
//     tokenizer.json   how text becomes tokens, if that needs a file
//     manifest.json    all that is not a tensor, and size and SHA-256 of every file
//
// A checkpoint is written under a temporary name, synced, and renamed: it is there whole or not at
// all, and the one before is removed only afterwards. That holds for the same step as well: the
// second one is "step-00001200.2", and then the first one goes. Nothing in it can execute.
// docs/formats/checkpoint.md has the bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/tensor.h"
#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/number_format.h"
#include "data/sample_ranges.h"
#include "data/tokenizer_record.h"
#include "net/message.h"

namespace checkpoint {

// A tensor to be written, read piece by piece so that no second copy of the state is needed.
struct TensorSource {
  std::string name;
  backend::Shape shape;
  std::function<void(int64_t first, std::span<float> elements)> read;
};
// Bytes that are no numbers, as a tensor of dtype U8.
struct BytesSource {
  std::string name;
  std::vector<std::byte> bytes;
};
struct FileSource {
  std::string name;  // "parameters.safetensors"
  std::vector<TensorSource> tensors;
  std::vector<BytesSource> bytes = {};            // Behind the tensors.
  NumberFormat numbers = NumberFormat::kFloat32;  // A checkpoint's are always fp32.
};

// A contribution to a fragment's round that was not over, or a round whose result was there but not
// merged; the bytes are in a file of their own.
struct InFlight {
  int64_t fragment = 0;
  int64_t step = 0;                   // After which the contribution was made.
  int64_t tokens = 0;                 // Its weight; 0 of a result.
  std::optional<int64_t> merge_from;  // Of a result: the step from which on it is to be merged,
  bool is_short = false;              // and whether its round was about fewer than H steps.
  bool operator==(const InFlight&) const = default;
};

// A value of the shared config that was changed on purpose when the run went on from `step`. Values
// as JSON.
struct ConfigChange {
  int64_t step = 0;
  std::string key;
  std::string before;
  std::string after;
  bool operator==(const ConfigChange&) const = default;
};

// Everything that is not a tensor.
struct Manifest {
  int64_t step = 0;  // Inner steps done: the next step to train.
  int64_t optimizer_updates = 0;
  int64_t tokens_trained = 0;  // By this node.
  std::string model_config;  // JSON of model::ModelConfig: evaluate and generate need nothing else.
  std::string data_config;  // JSON of the run's seed and data section: evaluate holds out the same.
                            // Empty in checkpoints of older versions.
  data::TokenizerRecord tokenizer;  // Its definition lies in a file of its own.
  base::Digest config;              // Of shared_config.
  std::string shared_config;  // JSON: what the nodes of the run share. Empty: an older version of
                              // Atoll wrote this.
  std::vector<ConfigChange> changes;  // Oldest first.
  base::Digest data;                  // Sampler::fingerprint().
  int64_t samples = 0;  // Of the run's data, handed out to all nodes as far as this one has heard.
  double samples_per_pass = 0;                  // In one pass over the data.
  std::vector<data::SampleRange> samples_left;  // Of those: this node's, not trained on yet.
  std::vector<net::FragmentState> outer;        // Empty: a run without outer loop.
  int64_t committed_step = 0;                   // Of the last commit that is in them.
  std::vector<int64_t> tokens_since_commit;
  std::vector<InFlight> in_flight;
  std::vector<double> gradient_squares;  // Per unit, of a lean optimiser; else empty.
  std::string wall_time;                 // For people.
  bool operator==(const Manifest&) const = default;
};

struct SaveOptions {
  std::string run_directory;
  int64_t keep = 3;  // At least 1. This one and the newest before it are kept; older ones are
                     // removed after this one is complete.
};
struct SaveReport {
  std::string directory;
  int64_t bytes = 0;
};
// Throws resource_lost when the disk fails; the newest checkpoint before is then as it was. Throws
// bad_input before anything gets a final name if the manifest could not be read back. A failure of
// TensorSource::read is passed on.
SaveReport save(base::Storage& storage, const SaveOptions& options, const Manifest& manifest,
                const std::vector<FileSource>& files);

// Writes one checkpoint as the folder `directory`, which is not there, and reads it back before it
// gets that name. What an earlier attempt has left is removed first. Throws as save() does.
SaveReport save_as(base::Storage& storage, const std::string& directory, const Manifest& manifest,
                   const std::vector<FileSource>& files);

// An opened checkpoint, verified: every file has the size and hash of the manifest.
class Reader {
 public:
  // Throws bad_input that names the file and what is wrong with its content; resource_lost where
  // the disk does not give it.
  static std::unique_ptr<Reader> open(base::Storage& storage, const std::string& directory);
  virtual ~Reader() = default;
  virtual const Manifest& manifest() const = 0;
  virtual bool has_file(const std::string& file) const = 0;
  virtual std::vector<std::string> tensor_names(const std::string& file) const = 0;
  // Copies elements of a tensor; throws bad_input if it is absent or its shape differs. REQUIRES:
  // the elements are in it.
  virtual void read(const std::string& file, const std::string& tensor, const backend::Shape& shape,
                    int64_t first, std::span<float> elements) const = 0;
  // The bytes of a BytesSource, as long as the reader lives; throws bad_input if they are absent.
  virtual std::span<const std::byte> bytes(const std::string& file,
                                           const std::string& name) const = 0;
};

inline constexpr int64_t kAnyStep = INT64_MAX;

// Complete checkpoints of a run with a step in [step_begin, step_end), oldest first: their folders.
std::vector<std::string> list(base::Storage& storage, const std::string& run_directory,
                              int64_t step_begin = 0, int64_t step_end = kAnyStep);
// The newest one before `step_end` that is whole; damaged newer ones are reported through `warn`
// and passed over. Nothing if there is none at all; bad_input if there are some and all are
// damaged, or if another version of Atoll wrote one; resource_lost if one cannot be read, which
// says nothing about it.
std::unique_ptr<Reader> open_newest(base::Storage& storage, const std::string& run_directory,
                                    const std::function<void(const std::string&)>& warn,
                                    int64_t step_end = kAnyStep);

// Renames a checkpoint's folder, so that it is neither opened as the newest nor removed any more,
// but can be opened by its name, which is returned. Throws resource_lost.
std::string set_aside(base::Storage& storage, const std::string& directory);

}  // namespace checkpoint
