#include "train/serve.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fmt/format.h>
#include <mutex>
#include <random>

#include "base/json.h"
#include "base/log.h"
#include "data/utf8.h"
#include "http/server.h"
#include "train/decoding_engine.h"
#include "train/open_checkpoint.h"
#include "train/serve/completion_answer.h"
#include "train/serve/scheduler.h"

namespace train {
namespace {

// The backend, then what is built on it; all on the decoder's thread.
struct ServedModel {
  ServedModel(const checkpoint::Reader& reader, const model::ModelConfig& model,
              const ServeOptions& options)
      : backend(make_one_backend(options.device, options.threads)),
        engine(backend, reader, model,
               {.sequences = options.sequences,
                .context = options.context,
                .batch_rows = options.batch_rows}) {}

  backend::Backend backend;
  DecodingEngine engine;
};

data::TokenizerRecord tokenizer_record(base::Storage& storage, const checkpoint::Reader& reader,
                                       const ServeOptions& options,
                                       const model::ModelConfig& model) {
  const auto tokenizer = tokenizer_for(storage, reader, options.tokenizer, model);
  return options.tokenizer.empty() ? reader.manifest().tokenizer : data::record_of(*tokenizer);
}

// "atoll-step-500" of runs/atoll.
std::string name_of(std::string path, int64_t step) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const std::string last = path.substr(path.rfind('/') + 1);
  if (last.starts_with("step-")) return last;
  return fmt::format("{}-step-{}", data::replace_invalid_utf8(last), step);
}

// The signal's handler can wake nobody, so it is looked for.
void wait_for_stop(const std::function<bool()>& stop_requested) {
  constexpr std::chrono::milliseconds kOften(50);
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  while (!stop_requested()) never.wait_for(lock, kOften);
}

int64_t now_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// What the routes share. Handlers run on several threads: all of it is constant, atomic, or guards
// itself.
class Service {
 public:
  Service(const ServeOptions& options, const model::ModelConfig& model, std::string name,
          const data::TokenizerRecord& record, const Scheduler::MakeDecoder& make_decoder)
      : limits_{options.context, model.vocabulary},
        name_(std::move(name)),
        started_(now_seconds()),
        tokenizer_(record),
        scheduler_({.sequences = options.sequences,
                    .batch_rows = options.batch_rows,
                    .queue = options.queue},
                   make_decoder) {}

  void add_routes(http::Server& server) {
    const auto add = [&](const char* method, const char* path,
                         http::Answer (Service::*handler)(const http::Request&)) {
      server.route(method, path, [this, handler](const http::Request& request) {
        try {
          return (this->*handler)(request);
        } catch (const Refusal& refusal) {
          return http::json_error(400, refusal.message, refusal.parameter);
        }
      });
    };
    add("POST", "/v1/completions", &Service::complete);
    add("GET", "/v1/models", &Service::list_models);
    add("GET", "/tokenizer_info", &Service::tell_tokenizer);
    add("POST", "/tokenize", &Service::tokenize);
    add("POST", "/detokenize", &Service::detokenize);
    add("GET", "/health", &Service::tell_health);
  }

 private:
  http::Answer complete(const http::Request& request);
  http::Answer wait_for_answer(const http::Request& request,
                               const std::shared_ptr<ServedRequest>& served,
                               const AnswerHead& head);
  void stream_answer(const http::Client& client, const std::shared_ptr<ServedRequest>& served,
                     const AnswerHead& head, const http::Write& write);
  http::Answer list_models(const http::Request& request);
  http::Answer tell_tokenizer(const http::Request& request);
  http::Answer tokenize(const http::Request& request);
  http::Answer detokenize(const http::Request& request);
  http::Answer tell_health(const http::Request&) { return {.body = R"({"status":"ok"})"}; }

  const RequestLimits limits_;
  const std::string name_;
  const int64_t started_;
  const ServedTokenizer tokenizer_;
  std::atomic<uint64_t> requests_ = 0;
  Scheduler scheduler_;
};

http::Answer Service::complete(const http::Request& request) {
  const auto served = std::make_shared<ServedRequest>();
  if (const auto refusal =
          read_completion_request(request.body, tokenizer_, limits_, served->asked))
    return http::json_error(400, refusal->message, refusal->parameter);
  const CompletionRequest& asked = served->asked;
  const uint64_t seed = asked.seed ? *asked.seed : std::random_device{}();
  for (size_t i = 0; i < asked.prompts.size(); ++i) {
    served->generations.push_back(
        std::make_unique<Generation>(tokenizer_, asked, int64_t(i), seed));
    served->finished += served->generations.back()->is_finished();
  }
  const AnswerHead head{.id = fmt::format("cmpl-{}-{}", started_, ++requests_),
                        .model = asked.model.empty() ? name_ : asked.model,
                        .created = now_seconds()};
  if (!scheduler_.submit(served))
    return http::json_error(503, "too many prompts wait already: try again later");
  if (!asked.stream) return wait_for_answer(request, served, head);
  return {.type = "text/event-stream",
          .stream = [this, served, head, &client = request.client](const http::Write& write) {
            stream_answer(client, served, head, write);
          }};
}

http::Answer Service::wait_for_answer(const http::Request& request,
                                      const std::shared_ptr<ServedRequest>& served,
                                      const AnswerHead& head) {
  bool is_done = false;
  scheduler_.watch(*served, [&](const ServedRequest& now) {
    is_done = now.is_done();
    return is_done || request.client.is_gone();
  });
  if (is_done) {  // Nobody changes it any more.
    if (!served->failure.empty()) return http::json_error(500, served->failure);
    return {.body = completion_answer(head, *served, tokenizer_)};
  }
  scheduler_.abandon(*served);
  return http::json_error(503, "the server is stopping");
}

// Writing may take long, so it is not done inside watch().
void Service::stream_answer(const http::Client& client,
                            const std::shared_ptr<ServedRequest>& served, const AnswerHead& head,
                            const http::Write& write) {
  std::vector<Delivered> delivered(served->generations.size());
  for (bool is_over = false; !is_over;) {
    std::string events;
    bool is_gone = false;
    scheduler_.watch(*served, [&](const ServedRequest& now) {
      for (size_t i = 0; i < delivered.size(); ++i)
        events += completion_events(head, now, tokenizer_, i, delivered[i]);
      is_over = now.is_done();
      is_gone = client.is_gone();
      return !events.empty() || is_over || is_gone;
    });
    if (is_over) {
      if (!served->failure.empty())
        events += "data: " + http::json_error(500, served->failure).body + "\n\n";
      events += kLastEvent;
    }
    if (is_gone || !write(events)) return scheduler_.abandon(*served);
  }
}

http::Answer Service::list_models(const http::Request&) {
  base::JsonWriter out;
  out.begin_object().field("object", "list").key("data").begin_array().begin_object();
  out.field("id", name_)
      .field("object", "model")
      .field("created", started_)
      .field("owned_by", "atoll")
      .field("max_model_len", limits_.context);
  out.end_object().end_array().end_object();
  return {.body = out.text()};
}

http::Answer Service::tell_tokenizer(const http::Request&) {
  base::JsonWriter out;
  out.begin_object();
  const auto text = [&](const char* key, const std::string& value) {
    out.key(key);
    value.empty() ? out.null() : out.value(value);
  };
  text("bos_token", tokenizer_.begin_text());
  text("eos_token", tokenizer_.end_text());
  text("pad_token", "");
  text("chat_template", "");
  out.field("add_bos_token", tokenizer_.has_begin())
      .field("vocab_size", tokenizer_.vocabulary())
      .field("model_max_length", limits_.context)
      .end_object();
  return {.body = out.text()};
}

http::Answer Service::tokenize(const http::Request& request) {
  const base::JsonValue body = parse_body(request.body);
  const auto ids =
      tokenizer_.encode(read_text(body, "prompt"), read_flag(body, "add_special_tokens", true));
  base::JsonWriter out;
  out.begin_object()
      .field("count", int64_t(ids.size()))
      .field("max_model_len", limits_.context)
      .key("tokens")
      .begin_array();
  for (const int32_t id : ids) out.value(int(id));
  out.end_array().end_object();
  return {.body = out.text()};
}

http::Answer Service::detokenize(const http::Request& request) {
  const base::JsonValue body = parse_body(request.body);
  const auto value = body.get("tokens");
  if (!value) throw Refusal{value.reason(), "tokens"};
  CharacterStream characters;
  std::string text;
  for (const int32_t id : read_ids(*value, "tokens", limits_.vocabulary))
    text += characters.push(tokenizer_.bytes_of(id));
  base::JsonWriter out;
  out.begin_object().field("prompt", text + characters.flush()).end_object();
  return {.body = out.text()};
}

void check_options(ServeOptions& options, const model::ModelConfig& model) {
  if (options.context > model.sequence_length) {
    throw base::bad_input(fmt::format("--context is {}, but the model was made for rows of {}",
                                      options.context, model.sequence_length));
  }
  if (options.context == 0) options.context = model.sequence_length;
  if (options.sequences > options.batch_rows) {
    throw base::bad_input(fmt::format("--sequences is {}, more than --batch-rows, which is {}",
                                      options.sequences, options.batch_rows),
                          "each needs a row of a batch");
  }
}

}  // namespace

void serve_checkpoint(base::Storage& storage, const ServeOptions& given,
                      const std::function<bool()>& stop_requested,
                      const std::function<void(const std::string& url)>& on_listening) {
  ServeOptions options = given;
  const auto reader = open_checkpoint(storage, options.checkpoint);
  const model::ModelConfig model = model_of(*reader);
  check_options(options, model);
  const auto record = tokenizer_record(storage, *reader, options, model);
  std::unique_ptr<Service> service;  // Outlives the server, which calls it.
  const auto server = http::make_server({.address = options.address, .port = int(options.port)});
  const std::string name = name_of(options.checkpoint, reader->manifest().step);
  service = std::make_unique<Service>(options, model, name, record, [&] {
    const auto served = std::make_shared<ServedModel>(*reader, model, options);
    const auto bytes = model::planned_cache_bytes(
        model, {.sequences = options.sequences, .context = options.context},
        served->backend.device->compute_dtype());
    base::log_info("{}: {} parameters on {}; {:.1f} MiB of keys and values for {} sequences of {}",
                   name, model::parameter_count(model), served->backend.device->name(),
                   double(bytes) / (1 << 20), options.sequences, options.context);
    return std::shared_ptr<model::Decoder>(served, &served->engine.decoder);
  });
  service->add_routes(*server);
  server->start();
  on_listening(server->url());
  wait_for_stop(stop_requested);
  base::log_info("stopping");
  server->stop();
}

}  // namespace train
