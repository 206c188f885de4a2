// The one tokenizer of a run: by its config, its data, and what it goes on from.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "data/tokenizer_record.h"
#include "train/run_config.h"

namespace train {

// A tokenizer, and where it comes from, for people.
struct KnownTokenizer {
  data::TokenizerRecord record;
  std::string where;
};

// Of a checkpoint. Those of before tokenizers were kept say "bytes" whatever their data were, and
// no ids: that is taken for nothing.
KnownTokenizer known_tokenizer(const checkpoint::Manifest& manifest, const std::string& where);

// Where none of them says how text became tokens, the result is not whole, and a warning says so.
// Throws bad_input that names two places whose tokenizers differ, or one whose ids the model does
// not know.
data::TokenizerRecord agree_on_tokenizer(const RunConfig& config, base::Storage& storage,
                                         const std::vector<const data::TokenDataset*>& datasets,
                                         const KnownTokenizer& known);

}  // namespace train
