// The model that a new run begins with instead of random numbers (checkpoint.start_from): a
// checkpoint of Atoll, or a folder of Hugging Face's transformers.
#pragma once

#include <memory>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "train/run_config.h"
#include "train/run_tokenizer.h"

namespace train {

class StartModel {
 public:
  // Null where the config names none. Throws bad_input that names what is wrong with it, or each
  // key of the config's model that differs: but for the length of rows and the z-loss all must be
  // equal.
  static std::unique_ptr<StartModel> open(base::Storage& storage, const RunConfig& config);
  virtual ~StartModel() = default;

  virtual KnownTokenizer tokenizer() const = 0;
  // In the order of the model's layout, as long as the object lives.
  virtual std::vector<checkpoint::TensorSource> tensors() const = 0;
};

}  // namespace train
