// The datasets of a run, and the sampler over them.
#pragma once

#include <memory>
#include <vector>

#include "base/file.h"
#include "data/sampler.h"
#include "train/run_config.h"

namespace train {

struct RunData {
  std::vector<std::unique_ptr<data::TokenDataset>> datasets;
  std::unique_ptr<data::Sampler> sampler;
};

// Opens `config.data.sources`, reads them once and logs what is in them. Throws bad_input when
// there is none, or one cannot be used with the model.
RunData open_data(const RunConfig& config, base::Storage& storage);

}  // namespace train
