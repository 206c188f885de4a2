#include "train/run_data.h"

#include <fmt/format.h>

#include "base/log.h"

namespace train {

RunData open_data(const RunConfig& config, base::Storage& storage, const KnownTokenizer& known) {
  if (config.data.sources.empty())
    throw base::bad_input("data.sources is empty",
                          "make a dataset with atoll prepare and name its prefix there");
  RunData data;
  data::SamplerOptions options = {.seed = uint64_t(config.seed),
                                  .sequence_length = config.model.sequence_length,
                                  .validation_fraction = config.data.validation_fraction,
                                  .weights = {},
                                  .vocabulary = config.model.vocabulary};
  std::vector<const data::TokenDataset*> pointers;
  for (const DataSource& source : config.data.sources) {
    data.datasets.push_back(data::TokenDataset::open(storage, source.prefix));
    pointers.push_back(data.datasets.back().get());
    options.weights.push_back(source.weight);
  }
  data.tokenizer = agree_on_tokenizer(config, storage, pointers, known);
  base::log_info("reading the data once, to see what is in it");
  data.sampler = std::make_unique<data::Sampler>(std::move(pointers), options);
  for (size_t d = 0; d < data.datasets.size(); ++d) {
    const data::TokenDataset& dataset = *data.datasets[d];
    base::log_info("dataset {}: {} documents, {} tokens{}", dataset.prefix(),
                   dataset.document_count(), dataset.token_count(),
                   options.weights[d] == 0
                       ? ", not used (weight 0)"
                       : fmt::format(", largest id {}", data.sampler->content(d).largest.id));
  }
  return data;
}

}  // namespace train
