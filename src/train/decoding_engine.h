// A checkpoint's model, ready to write: its weights on one device, and a decoder for them.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "shard/parameters.h"

namespace train {

// One rank on this kind of device ("auto", "cpu", "cuda"); `threads` 0: all. For the calling
// thread.
backend::Backend make_one_backend(const std::string& device, int64_t threads);

// Built in this order, torn down in the other.
struct DecodingEngine {
  // The calling thread computes from here on. `backend` outlives the object.
  DecodingEngine(backend::Backend& backend, const checkpoint::Reader& reader,
                 const model::ModelConfig& model, const model::DecoderOptions& options);

  shard::Layout layout;
  shard::Parameters parameters;
  model::Decoder decoder;
};

}  // namespace train
