// A model on a device: backend, layout, parameters and transformer, built in that order and torn
// down in the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "data/sampler.h"
#include "model/transformer.h"
#include "shard/parameters.h"

namespace train {

// "auto" takes a GPU if there is one. Throws bad_input when the device that was asked for cannot be
// had.
backend::Backend choose_backend(const std::string& device, int64_t threads);

struct Engine {
  Engine(backend::Backend chosen, const model::ModelConfig& model,
         const model::TransformerOptions& options);

  model::ModelConfig config;
  backend::Backend backend;
  shard::Layout layout;
  shard::Parameters parameters;
  model::Transformer transformer;
};

// Mean cross-entropy over at most `rows` held-out rows.
struct Validation {
  double loss = 0;
  int64_t tokens = 0;
};
Validation validate(Engine& engine, const data::Sampler& sampler, int64_t micro_batch_rows,
                    int64_t rows);

}  // namespace train
