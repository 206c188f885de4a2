#include "train/serve/completion_request.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>

namespace train {
namespace {

using base::JsonValue;

constexpr std::string_view kFields[] = {
    "prompt",  "model",      "max_tokens",       "temperature",      "top_p", "top_k", "seed",
    "stop",    "echo",       "logprobs",         "stream",           "n",     "user",  "suffix",
    "best_of", "logit_bias", "presence_penalty", "frequency_penalty"};

bool is_null(const JsonValue& value) {
  return !value.is_array() && !value.is_object() && !value.as_string() && !value.as_number() &&
         !value.as_boolean();
}

// A field that is absent or null has no value.
std::optional<JsonValue> value_of(const JsonValue& object, const char* key) {
  if (!object.has(key)) return std::nullopt;
  const auto value = object.get(key);
  if (!value || is_null(*value)) return std::nullopt;
  return *value;
}

double read_number(const JsonValue& object, const char* key, double low, double high,
                   double otherwise) {
  const auto value = value_of(object, key);
  if (!value) return otherwise;
  const auto number = value->as_number();
  if (!number) throw Refusal{number.reason(), key};
  if (*number >= low && *number <= high) return *number;  // A NaN is not.
  throw Refusal{
      fmt::format("{}: expected a number from {} to {}, found {}", key, low, high, *number), key};
}

int64_t read_integer(const JsonValue& object, const char* key, int64_t low, int64_t high,
                     int64_t otherwise) {
  const auto value = value_of(object, key);
  if (!value) return otherwise;
  const auto number = value->as_integer();
  if (!number) throw Refusal{number.reason(), key};
  if (*number >= low && *number <= high) return *number;
  throw Refusal{
      fmt::format("{}: expected an integer from {} to {}, found {}", key, low, high, *number), key};
}

// What other servers have and this one does not; its default is fine.
void refuse_unsupported(const JsonValue& object) {
  for (const std::string& key : object.keys()) {
    if (std::ranges::find(kFields, key) == std::end(kFields))
      throw Refusal{fmt::format("{}: there is no such field here", key.substr(0, 100)),
                    key.substr(0, 100)};
  }
  read_integer(object, "n", 1, 1, 1);
  read_integer(object, "best_of", 1, 1, 1);
  read_number(object, "presence_penalty", 0, 0, 0);
  read_number(object, "frequency_penalty", 0, 0, 0);
  if (const auto suffix = value_of(object, "suffix"))
    throw Refusal{"suffix: not supported", "suffix"};
  const auto bias = value_of(object, "logit_bias");
  if (bias && bias->count() > 0) throw Refusal{"logit_bias: not supported", "logit_bias"};
}

bool is_number(const JsonValue& value) {
  return value.as_number().ok();
}

std::vector<std::vector<int32_t>> read_prompts(const JsonValue& object,
                                               const ServedTokenizer& tokenizer,
                                               int64_t vocabulary) {
  const auto prompt = value_of(object, "prompt");
  if (!prompt) throw Refusal{"prompt: missing", "prompt"};
  if (const auto text = prompt->as_string()) return {tokenizer.encode(*text, true)};
  if (!prompt->is_array() || prompt->count() == 0) {
    throw Refusal{"prompt: expected a text, texts, token ids, or lists of token ids", "prompt"};
  }
  if (is_number(*prompt->at(0))) return {read_ids(*prompt, "prompt", vocabulary)};
  if (prompt->count() > kPromptsMax) {
    throw Refusal{
        fmt::format("prompt: at most {} in one request, found {}", kPromptsMax, prompt->count()),
        "prompt"};
  }
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < prompt->count(); ++i) {
    const JsonValue one = *prompt->at(i);
    if (one.is_array()) {
      prompts.push_back(read_ids(one, "prompt", vocabulary));
    } else if (const auto text = one.as_string()) {
      prompts.push_back(tokenizer.encode(*text, true));
    } else {
      throw Refusal{text.reason(), "prompt"};
    }
  }
  return prompts;
}

std::vector<std::string> read_stops(const JsonValue& object) {
  const auto value = value_of(object, "stop");
  if (!value) return {};
  std::vector<std::string> stops;
  if (const auto text = value->as_string()) {
    stops.push_back(*text);
  } else {
    if (!value->is_array()) throw Refusal{"stop: expected a text or texts", "stop"};
    if (value->count() > kStopsMax)
      throw Refusal{fmt::format("stop: at most {}, found {}", kStopsMax, value->count()), "stop"};
    for (int64_t i = 0; i < value->count(); ++i) {
      const auto one = value->at(i)->as_string();
      if (!one) throw Refusal{one.reason(), "stop"};
      stops.push_back(*one);
    }
  }
  for (const std::string& stop : stops) {
    if (stop.empty() || int64_t(stop.size()) > kStopBytesMax)
      throw Refusal{fmt::format("stop: each has 1 to {} bytes", kStopBytesMax), "stop"};
  }
  return stops;
}

// Without max_tokens as many as fit, but no more than usual.
void fit_context(const JsonValue& object, const RequestLimits& limits, CompletionRequest& request) {
  for (const auto& prompt : request.prompts) {
    const auto length = int64_t(prompt.size());
    if (length == 0) {
      throw Refusal{"prompt: empty, and this tokenizer has no begin token", "prompt"};
    }
    if (length > limits.context) {
      throw Refusal{
          fmt::format("prompt: {} tokens, but the model takes {}", length, limits.context),
          "prompt"};
    }
    const int64_t left = limits.context - length;
    if (!value_of(object, "max_tokens")) request.tokens_max = std::min(request.tokens_max, left);
    if (request.tokens_max > left) {
      throw Refusal{fmt::format("max_tokens: the prompt has {} tokens, so that {} are left of the "
                                "model's {}, found {}",
                                length, left, limits.context, request.tokens_max),
                    "max_tokens"};
    }
  }
}

void read_request(const JsonValue& object, const ServedTokenizer& tokenizer,
                  const RequestLimits& limits, CompletionRequest& request) {
  refuse_unsupported(object);
  request.tokens_max = read_integer(object, "max_tokens", 0, limits.context, request.tokens_max);
  request.sampling.temperature = read_number(object, "temperature", 0, 2, 1);
  request.sampling.top_p = read_number(object, "top_p", 0, 1, 1);
  request.sampling.top_k = read_integer(object, "top_k", -1, limits.vocabulary, 0);
  request.sampling.top_k = std::max<int64_t>(0, request.sampling.top_k);  // -1: all, as in vLLM.
  if (value_of(object, "seed")) {
    request.seed = uint64_t(read_integer(object, "seed", std::numeric_limits<int64_t>::min(),
                                         std::numeric_limits<int64_t>::max(), 0));
  }
  request.echo = read_flag(object, "echo", false);
  request.stream = read_flag(object, "stream", false);
  if (value_of(object, "logprobs"))
    request.logprobs = read_integer(object, "logprobs", 0, kTopLogprobsMax, 0);
  if (value_of(object, "model")) request.model = read_text(object, "model");
  request.stops = read_stops(object);
  request.prompts = read_prompts(object, tokenizer, limits.vocabulary);
  fit_context(object, limits, request);
  if (request.stream && request.echo) throw Refusal{"echo: not together with stream", "echo"};
}

}  // namespace

JsonValue parse_body(const std::string& body) {
  const auto document = JsonValue::parse(body);
  if (!document) throw Refusal{fmt::format("the body is not JSON: {}", document.reason()), ""};
  if (!document->is_object()) throw Refusal{"the body must be a JSON object", ""};
  return *document;
}

std::string read_text(const JsonValue& object, const char* key) {
  const auto value = object.get(key);
  const auto text =
      value ? value->as_string() : base::Result<std::string>(base::Failure{value.reason()});
  if (!text) throw Refusal{text.reason(), key};
  return *text;
}

std::vector<int32_t> read_ids(const JsonValue& array, const char* key, int64_t vocabulary) {
  if (!array.is_array()) throw Refusal{fmt::format("{}: expected token ids", key), key};
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < array.count(); ++i) {
    const auto id = array.at(i)->as_integer();
    if (!id) throw Refusal{id.reason(), key};
    if (*id < 0 || *id >= vocabulary) {
      throw Refusal{
          fmt::format("{}: token {} is outside the model's vocabulary of {}", key, *id, vocabulary),
          key};
    }
    ids.push_back(int32_t(*id));
  }
  return ids;
}

bool read_flag(const JsonValue& object, const char* key, bool otherwise) {
  const auto value = value_of(object, key);
  if (!value) return otherwise;
  const auto flag = value->as_boolean();
  if (!flag) throw Refusal{flag.reason(), key};
  return *flag;
}

std::optional<Refusal> read_completion_request(const std::string& body,
                                               const ServedTokenizer& tokenizer,
                                               const RequestLimits& limits,
                                               CompletionRequest& request) {
  try {
    read_request(parse_body(body), tokenizer, limits, request);
    return std::nullopt;
  } catch (const Refusal& refusal) {
    return refusal;
  }
}

}  // namespace train
