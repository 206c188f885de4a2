// Models as folders of Hugging Face's `transformers`, both ways.
//
//   DIR/config.json                   LlamaForCausalLM, as versions 4 and 5 read it
//       generation_config.json        begin and end ids
//       model.safetensors             all tensors, or where they are more than shard_bytes_max:
//       model-00001-of-00003.safetensors, ..., model.safetensors.index.json
//       tokenizer.json, tokenizer_config.json   if the tokenizer is known
//
// Nothing is turned or permuted: weights are (outputs, inputs) and the rotary layout is the same on
// both sides. docs/hugging-face.md has the rules.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "data/tokenizer_record.h"
#include "model/config.h"

namespace checkpoint {

// Bytes of tensors that are done, and of all: of everything that is read or written. May throw, to
// stop: what was written so far is then removed.
using ConversionProgress = std::function<void(int64_t done, int64_t total)>;

struct HuggingFaceOptions {
  std::string folder;  // Is not there, or empty.
  NumberFormat numbers = NumberFormat::kFloat32;
  int64_t shard_bytes_max = 5'000'000'000;  // Of tensors in a file; one that is larger has its own.
  ConversionProgress progress = {};
};
struct HuggingFaceReport {
  int64_t parameters = 0;  // In the files.
  int64_t bytes = 0;       // Of all files.
  int64_t shards = 0;
  bool is_tied = false;  // The head is the embedding, bit by bit: it stands there once.
};

// `tensors` are those of make_layout(model), by name. All is written into DIR.partial, read back,
// and gets its name then; what an earlier attempt has left there goes first. Memory: a few
// megabytes. Throws bad_input where something is in the folder, or where a number is too large for
// the format; resource_lost when the disk fails, or has not kept what was written.
HuggingFaceReport write_hugging_face(base::Storage& storage, const HuggingFaceOptions& options,
                                     const model::ModelConfig& model,
                                     const data::TokenizerRecord& tokenizer,
                                     const std::vector<TensorSource>& tensors);

// The tokenizer.json of such a folder: the tokenizer's own text, or for "bytes" a byte-level BPE
// without merges that gives the same ids. REQUIRES: record.is_whole().
std::string tokenizer_json(const data::TokenizerRecord& record);
// The text of the added token with this id in a tokenizer.json; empty if there is none.
std::string added_token_text(const std::string& tokenizer_json, int32_t id);

// A folder that was opened: every file is there, and every tensor has the shape that config.json
// says. Its files stay mapped.
class HuggingFaceModel {
 public:
  // Throws bad_input that names file, key or tensor for a model that is not of Llama's shape, and
  // for a folder that is incomplete or damaged.
  static std::unique_ptr<HuggingFaceModel> open(base::Storage& storage, const std::string& folder);
  virtual ~HuggingFaceModel() = default;

  // model.sequence_length is max_position_embeddings; z_loss_weight is not in there.
  virtual const model::ModelConfig& config() const = 0;
  virtual bool is_tied() const = 0;
  virtual const std::vector<std::string>& number_formats() const = 0;  // "BF16": those in use.
  // Whole if there is a tokenizer.json. `problem` says why it cannot be used here, if so: it is
  // kept all the same.
  virtual const data::TokenizerRecord& tokenizer() const = 0;
  virtual const std::string& tokenizer_problem() const = 0;
  // The tensors of make_layout(config()), in its order; they read from the files, as long as the
  // object lives. A tied head is a copy of the embedding.
  virtual std::vector<TensorSource> tensors() const = 0;
};

}  // namespace checkpoint
