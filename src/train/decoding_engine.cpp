#include "train/decoding_engine.h"

#include "train/engine.h"
#include "train/node_checkpoint.h"

namespace train {

backend::Backend make_one_backend(const std::string& device, int64_t threads) {
  auto backends = choose_backends({.device = device, .ranks = 1, .threads = threads});
  backends.front().device->enter_thread();
  return std::move(backends.front());
}

DecodingEngine::DecodingEngine(backend::Backend& backend, const checkpoint::Reader& reader,
                               const model::ModelConfig& model,
                               const model::DecoderOptions& options)
    : layout(model::make_layout(model)),
      parameters(layout, backend),
      decoder(model, options, parameters, backend) {
  load_trained_parameters(reader, parameters);
}

}  // namespace train
