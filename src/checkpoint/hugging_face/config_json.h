// config.json of LlamaForCausalLM. Version 5 of transformers has everything of the rotary embedding
// in `rope_parameters` and calls the type of numbers `dtype`; version 4 has `rope_theta`,
// `rope_scaling` and `torch_dtype`. Both are written, and either is read.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/number_format.h"
#include "data/tokenizer_record.h"
#include "model/config.h"

namespace checkpoint {

struct HuggingFaceConfig {
  model::ModelConfig model;
  bool is_tied = false;
  NumberFormat numbers = NumberFormat::kFloat32;  // Written, not read: tensors say it themselves.
  // Tokenizer::kNoId: null. Of a list of end ids, the first.
  int32_t begin_id = data::Tokenizer::kNoId;
  int32_t end_id = data::Tokenizer::kNoId;
  bool has_begin_id = false;  // The key is there, be it null.
};

std::string write_config_json(const HuggingFaceConfig& config);
// Throws bad_input that names `path` and the key for anything that is not exactly the mathematics
// of model::Transformer.
HuggingFaceConfig read_config_json(const std::string& text, const std::string& path);

std::string write_generation_config(int32_t begin_id, int32_t end_id);

}  // namespace checkpoint
