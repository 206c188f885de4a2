// Fuzz target for config.json of a model of transformers, which comes from strangers. What must
// hold, besides that nothing crashes: what is taken for a model is within the bounds of a run's
// config, and is written as what is read as the same.
//
// Under a fuzzer: as tests/fuzz/manifest_fuzz.cpp, with
// src/checkpoint/hugging_face/config_json.cpp, src/checkpoint/number_format.cpp and
// model/config.cpp.
#include <string>

#include "base/error.h"
#include "checkpoint/hugging_face/config_json.h"
#include "fuzz/target.h"

namespace checkpoint {
namespace {

std::string meaning(const HuggingFaceConfig& config) {
  model::ModelConfig model = config.model;
  const auto describe = [&](base::ConfigVisitor& v) { model::describe(v, model); };
  const std::string text = base::write_config(describe);
  const auto document = base::JsonValue::parse(text);
  CHECK(document.ok());
  base::read_config(*document, "config", describe);  // Throws where something is out of bounds.
  // A scaling has what its kind needs; the rest is not written.
  if (!model.rope_scaling.is_used()) model.rope_scaling = {};
  if (model.rope_scaling.kind == "linear")
    model.rope_scaling = {.kind = "linear", .factor = model.rope_scaling.factor};
  return fmt::format("{} {} {} {}", base::write_config(describe), config.is_tied, config.begin_id,
                     config.end_id);
}

void check_config(const std::string& text) {
  HuggingFaceConfig config;
  try {
    config = read_config_json(text, "config.json");
  } catch (const base::Error&) {
    return;
  }
  const std::string again = write_config_json(config);
  CHECK(meaning(read_config_json(again, "again")) == meaning(config), "{}\nbecomes\n{}", text,
        again);
}

FuzzInput input_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace
}  // namespace checkpoint

std::vector<FuzzInput> valid_fuzz_inputs() {
  checkpoint::HuggingFaceConfig config;
  std::vector<FuzzInput> inputs;
  for (const char* kind : {"none", "linear", "llama3"}) {
    config.model.rope_scaling.kind = kind;
    config.begin_id = 5;
    inputs.push_back(checkpoint::input_of(checkpoint::write_config_json(config)));
  }
  inputs.push_back(checkpoint::input_of(
      R"({"model_type":"llama","vocab_size":8,"hidden_size":8,"num_hidden_layers":1,)"
      R"("num_attention_heads":2,"intermediate_size":4,"eos_token_id":[3,4],)"
      R"("rope_scaling":{"type":"linear","factor":2}})"));
  return inputs;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t byte_count) {
  checkpoint::check_config({reinterpret_cast<const char*>(data), byte_count});
  return 0;
}
