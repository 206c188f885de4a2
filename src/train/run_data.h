// The datasets of a run, and the sampler over them.
#pragma once

#include <memory>
#include <vector>

#include "base/file.h"
#include "data/sampler.h"
#include "train/run_config.h"
#include "train/run_tokenizer.h"

namespace train {

struct RunData {
  std::vector<std::unique_ptr<data::TokenDataset>> datasets;
  std::unique_ptr<data::Sampler> sampler;
  data::TokenizerRecord tokenizer;  // Not whole: not known.
};

// Opens `config.data.sources`, reads them once and logs what is in them. `known` is the tokenizer
// of what the run goes on from, if that is known. Throws bad_input when there is no source, when
// one cannot be used with the model, or when their tokenizers are not one and the same.
RunData open_data(const RunConfig& config, base::Storage& storage,
                  const KnownTokenizer& known = {});

}  // namespace train
