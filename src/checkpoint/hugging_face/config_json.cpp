#include "checkpoint/hugging_face/config_json.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string_view>

#include "base/json.h"

namespace checkpoint {
namespace {

using base::JsonValue;

// What transformers fills in where a key is missing.
constexpr double kRopeBaseDefault = 10'000;
constexpr double kNormEpsilonDefault = 1e-6;
constexpr int64_t kSequenceLengthDefault = 2048;

void write_id(base::JsonWriter& out, const char* key, int32_t id) {
  out.key(key);
  id == data::Tokenizer::kNoId ? out.null() : out.value(id);
}

// The fields of a scaling, into an object that is open.
void write_scaling(base::JsonWriter& out, const model::RopeScaling& scaling) {
  out.field("rope_type", scaling.is_used() ? scaling.kind : "default");
  if (!scaling.is_used()) return;
  out.field("factor", scaling.factor);
  if (scaling.kind != "llama3") return;
  out.field("low_freq_factor", scaling.low_frequency_factor)
      .field("high_freq_factor", scaling.high_frequency_factor)
      .field("original_max_position_embeddings", scaling.original_sequence_length);
}

void write_rope(base::JsonWriter& out, const model::ModelConfig& c) {
  out.key("rope_parameters").begin_object();
  out.field("rope_theta", c.rope_base);
  write_scaling(out, c.rope_scaling);
  out.end_object().key("rope_scaling");
  if (c.rope_scaling.is_used()) {
    out.begin_object();
    write_scaling(out, c.rope_scaling);
    out.end_object();
  } else {
    out.null();
  }
  out.field("rope_theta", c.rope_base);
}

class ConfigJson {
 public:
  ConfigJson(const std::string& text, const std::string& path) : path_(path) {
    auto document = JsonValue::parse(text);
    if (!document || !document->is_object())
      throw refuse(document ? "expected an object" : document.reason(), "is the file damaged?");
    document_.emplace(std::move(*document));
  }

  HuggingFaceConfig read() {
    require_llama();
    HuggingFaceConfig config;
    read_shape(config.model);
    read_rope(config.model);
    config.is_tied = flag("tie_word_embeddings");
    config.has_begin_id = document_->has("bos_token_id");
    config.begin_id = token_id("bos_token_id");
    config.end_id = token_id("eos_token_id");
    require_ranges(config.model);
    model::validate(config.model);
    return config;
  }

 private:
  base::Error refuse(const std::string& what, const std::string& hint = {}) const {
    return base::bad_input(fmt::format("{}: {}", path_, what), hint);
  }
  base::Error unsupported(const std::string& what) const {
    return refuse(what, "only models that compute what Llama 2 and 3 do can be taken over");
  }
  template <class T>
  T require(base::Result<T> result) const {
    if (!result) throw refuse(result.reason());
    return std::move(*result);
  }
  // Nothing where the key is missing or null.
  std::optional<JsonValue> find(const JsonValue& object, const char* key) const {
    if (!object.has(key)) return std::nullopt;
    const JsonValue value = require(object.get(key));
    return value.dump() == "null" ? std::nullopt : std::optional(value);
  }
  std::optional<JsonValue> find(const char* key) const { return find(*document_, key); }
  bool flag(const char* key) const {
    const auto value = find(key);
    return value && require(value->as_boolean());
  }

  void require_llama() const {
    const auto type = find("model_type");
    const std::string name = type ? require(type->as_string()) : "";
    if (name != "llama" && name != "mistral")
      throw unsupported(fmt::format("the model_type is \"{}\", not llama or mistral", name));
    require_architecture();
    for (const char* bias : {"attention_bias", "mlp_bias"})
      if (flag(bias)) throw unsupported(fmt::format("{} is true: there are no biases here", bias));
    if (const auto window = find("sliding_window"))
      throw unsupported(fmt::format("sliding_window is {}", window->dump()));
    if (find("quantization_config")) throw unsupported("the weights are quantised");
    if (const auto part = find("partial_rotary_factor"); part && require(part->as_number()) != 1)
      throw unsupported(fmt::format("partial_rotary_factor is {}", part->dump()));
    const auto act = find("hidden_act");
    if (act && require(act->as_string()) != "silu")
      throw unsupported(fmt::format("hidden_act is {}, not silu", act->dump()));
  }

  void require_architecture() const {
    const auto list = find("architectures");
    if (!list) return;
    for (int64_t i = 0; i < list->count(); ++i) {
      const std::string name = require(require(list->at(i)).as_string());
      if (name == "LlamaForCausalLM" || name == "MistralForCausalLM") return;
    }
    throw unsupported(fmt::format("the architecture is {}, not LlamaForCausalLM", list->dump()));
  }

  // Within what a model here may have; shapes are compared with the tensors later.
  int64_t size(const char* key, std::optional<int64_t> otherwise = {}) const {
    return size(*document_, key, otherwise);
  }
  int64_t size(const JsonValue& object, const char* key,
               std::optional<int64_t> otherwise = {}) const {
    constexpr int64_t kSizeMax = int64_t{1} << 24;
    const auto value = find(object, key);
    if (!value && otherwise) return *otherwise;
    if (!value) throw refuse(fmt::format("{} is missing", key), "is it the config of a model?");
    const int64_t number = require(value->as_integer());
    if (number < 1 || number > kSizeMax)
      throw refuse(value->unexpected(fmt::format("a number from 1 to {}", kSizeMax)).reason);
    return number;
  }
  double positive(const JsonValue& object, const char* key, double otherwise) const {
    const auto value = find(object, key);
    if (!value) return otherwise;
    const double number = require(value->as_number());
    if (!(number > 0)) throw refuse(value->unexpected("a number above 0").reason);
    return number;
  }

  void read_shape(model::ModelConfig& c) const {
    c.vocabulary = size("vocab_size");
    c.width = size("hidden_size");
    c.layers = size("num_hidden_layers");
    c.heads = size("num_attention_heads");
    c.kv_heads = size("num_key_value_heads", c.heads);
    c.head_size = find("head_dim") ? size("head_dim") : head_size_of(c);
    c.feed_forward = size("intermediate_size");
    c.sequence_length = size("max_position_embeddings", kSequenceLengthDefault);
    c.norm_epsilon = positive(*document_, "rms_norm_eps", kNormEpsilonDefault);
  }

  int64_t head_size_of(const model::ModelConfig& c) const {
    if (c.width % c.heads == 0) return c.width / c.heads;
    throw refuse(
        fmt::format("num_attention_heads {} does not divide hidden_size {}, and there is "
                    "no head_dim",
                    c.heads, c.width));
  }

  void read_rope(model::ModelConfig& c) const {
    c.rope_base = positive(*document_, "rope_theta", kRopeBaseDefault);
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const auto object = find(key);
      if (!object) continue;
      if (!object->is_object()) throw refuse(object->unexpected("an object").reason);
      c.rope_base = positive(*object, "rope_theta", c.rope_base);
      read_scaling(*object, key, c);
    }
  }

  void read_scaling(const JsonValue& object, const char* key, model::ModelConfig& c) const {
    auto type = find(object, "rope_type");
    if (!type) type = find(object, "type");  // Of old.
    const std::string kind = type ? require(type->as_string()) : "default";
    if (kind == "default") return;
    if (kind != "linear" && kind != "llama3") {
      throw unsupported(
          fmt::format("{} has the type \"{}\"; known are default, linear and llama3", key, kind));
    }
    const auto required = [&](const char* name) {
      const double number = positive(object, name, 0);
      if (number == 0) throw refuse(fmt::format("{}.{} is missing", key, name));
      return number;
    };
    model::RopeScaling& scaling = c.rope_scaling;
    scaling.kind = kind;
    scaling.factor = required("factor");
    if (kind == "linear") return;
    scaling.low_frequency_factor = required("low_freq_factor");
    scaling.high_frequency_factor = required("high_freq_factor");
    scaling.original_sequence_length = size(object, "original_max_position_embeddings");
  }

  // What a config of a run may say, so that no number here costs memory before tensors are looked
  // at.
  void require_ranges(model::ModelConfig& c) const {
    const auto describe = [&](base::ConfigVisitor& v) { model::describe(v, c); };
    base::read_config(require(JsonValue::parse(base::write_config(describe))), path_, describe);
  }

  int32_t token_id(const char* key) const {
    auto value = find(key);
    if (value && value->is_array()) {
      if (value->count() == 0) return data::Tokenizer::kNoId;
      value = require(value->at(0));
    }
    if (!value) return data::Tokenizer::kNoId;
    const int64_t id = require(value->as_integer());
    const bool is_none = id < 0 || id > std::numeric_limits<int32_t>::max();
    return is_none ? data::Tokenizer::kNoId : int32_t(id);
  }

  const std::string path_;
  std::optional<JsonValue> document_;
};

// JSON has one kind of numbers, but Python has two, and version 4 warns of an integer here: a point
// behind whole ones. A key stands in a line of its own.
std::string with_points(const std::string& text) {
  constexpr std::array<std::string_view, 7> kReal = {
      "attention_dropout", "initializer_range", "rms_norm_eps", "rope_theta", "factor",
      "low_freq_factor",   "high_freq_factor"};
  std::string result;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const size_t colon = line.find("\": ");
    const std::string_view value = colon == line.npos ? "" : line.substr(colon + 3);
    const std::string_view number = value.substr(0, value.find(','));
    const bool is_whole = !number.empty() && number.find_first_not_of("0123456789") == number.npos;
    const bool is_real = std::ranges::any_of(kReal, [&](std::string_view key) {
      return line.find(fmt::format("\"{}\"", key)) != line.npos;
    });
    result += line.substr(0, line.size() - value.size());
    result += number;
    if (is_whole && is_real) result += ".0";
    result += value.substr(number.size());
    result += '\n';
    begin = end + 1;
  }
  return result;
}

}  // namespace

std::string write_config_json(const HuggingFaceConfig& config) {
  const model::ModelConfig& c = config.model;
  base::JsonWriter out(2);
  out.begin_object().key("architectures").begin_array().value("LlamaForCausalLM").end_array();
  out.field("attention_bias", false).field("attention_dropout", 0.0);
  write_id(out, "bos_token_id", config.begin_id);
  out.field("dtype", torch_name(config.numbers));
  write_id(out, "eos_token_id", config.end_id);
  out.field("head_dim", c.head_size)
      .field("hidden_act", "silu")
      .field("hidden_size", c.width)
      .field("initializer_range", 0.02)
      .field("intermediate_size", c.feed_forward)
      .field("max_position_embeddings", c.sequence_length)
      .field("mlp_bias", false)
      .field("model_type", "llama")
      .field("num_attention_heads", c.heads)
      .field("num_hidden_layers", c.layers)
      .field("num_key_value_heads", c.kv_heads)
      .field("pretraining_tp", 1)
      .field("rms_norm_eps", c.norm_epsilon);
  write_rope(out, c);
  out.field("tie_word_embeddings", config.is_tied)
      .field("torch_dtype", torch_name(config.numbers))
      .field("use_cache", true)
      .field("vocab_size", c.vocabulary)
      .end_object();
  return with_points(out.text());
}

HuggingFaceConfig read_config_json(const std::string& text, const std::string& path) {
  return ConfigJson(text, path).read();
}

std::string write_generation_config(int32_t begin_id, int32_t end_id) {
  base::JsonWriter out(2);
  out.begin_object().field("_from_model_config", true);
  write_id(out, "bos_token_id", begin_id);
  write_id(out, "eos_token_id", end_id);
  out.end_object();
  return out.text() + "\n";
}

}  // namespace checkpoint
