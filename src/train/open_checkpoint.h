// Checkpoints as models: what is used of one where nothing is trained on from it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "data/tokenizer.h"
#include "model/config.h"

namespace train {

// A checkpoint's folder, or a run directory.
bool is_checkpoint(base::Storage& storage, const std::string& path);
// Of a run directory the newest. Throws bad_input where it is neither.
std::unique_ptr<checkpoint::Reader> open_checkpoint(base::Storage& storage,
                                                    const std::string& path);
model::ModelConfig model_of(const checkpoint::Reader& reader);

// The tokenizer of this name (as data.tokenizer), or where it is empty the checkpoint's own. Throws
// bad_input where there is none, or one with more ids than the model knows.
std::unique_ptr<data::Tokenizer> tokenizer_for(base::Storage& storage,
                                               const checkpoint::Reader& reader,
                                               const std::string& name,
                                               const model::ModelConfig& model);

inline constexpr const char* kParametersFile = "parameters.safetensors";
inline constexpr const char* kOuterParametersFile = "outer_parameters.safetensors";

// The file with the model that a checkpoint stands for: the outer parameters if it has them.
std::string trained_file(const checkpoint::Reader& reader);
// Every tensor of the layout, read from a file. `reader` outlives them.
std::vector<checkpoint::TensorSource> tensor_sources(const checkpoint::Reader& reader,
                                                     const std::string& file,
                                                     const shard::Layout& layout);

}  // namespace train
