// Folders of transformers that a run writes beside its checkpoints (checkpoint.also_hugging_face):
// RUN/hugging_face/step-00001200.
#pragma once

#include <cstdint>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "train/run_config.h"

namespace train {

// Writes that of a step, unless it is there, and then removes the oldest beyond checkpoint.keep.
// `tensors` are those of the model. Throws as write_hugging_face() does.
void write_hugging_face_copy(base::Storage& storage, const RunConfig& config, int64_t step,
                             const data::TokenizerRecord& tokenizer,
                             const std::vector<checkpoint::TensorSource>& tensors);

}  // namespace train
