#include "train/start_model.h"

#include <fmt/format.h>

#include "base/log.h"
#include "checkpoint/hugging_face.h"
#include "train/open_checkpoint.h"
#include "train/shared_config.h"

namespace train {
namespace {

constexpr const char* kKey = "checkpoint.start_from";

// What must be equal, as a section of a config.
std::string shape_text(model::ModelConfig model) {
  const model::ModelConfig any;
  model.sequence_length = any.sequence_length;
  model.z_loss_weight = any.z_loss_weight;
  return base::write_config(
      [&](base::ConfigVisitor& v) { v.section("model", "", [&] { model::describe(v, model); }); },
      -1);
}

void require_shape(const RunConfig& config, const model::ModelConfig& found) {
  const auto differences = shared_config_differences(shape_text(config.model), shape_text(found));
  if (!differences.empty()) {
    throw base::bad_input(fmt::format("{}: {} is another model than the config's:\n{}", kKey,
                                      config.checkpoint.start_from, difference_lines(differences)),
                          fmt::format("`atoll inspect model {}` prints the section that fits",
                                      config.checkpoint.start_from));
  }
  if (config.model.sequence_length > found.sequence_length) {
    base::log_warning("model.sequence_length is {}, but {} was made for rows of {}",
                      config.model.sequence_length, config.checkpoint.start_from,
                      found.sequence_length);
  }
}

class FromCheckpoint : public StartModel {
 public:
  FromCheckpoint(base::Storage& storage, const RunConfig& config)
      : reader_(open_checkpoint(storage, config.checkpoint.start_from)),
        layout_(model::make_layout(config.model)) {
    require_shape(config, model_of(*reader_));
  }
  KnownTokenizer tokenizer() const override { return known_tokenizer(reader_->manifest(), kKey); }
  std::vector<checkpoint::TensorSource> tensors() const override {
    return tensor_sources(*reader_, trained_file(*reader_), layout_);
  }

 private:
  const std::unique_ptr<checkpoint::Reader> reader_;
  const shard::Layout layout_;
};

class FromHuggingFace : public StartModel {
 public:
  FromHuggingFace(base::Storage& storage, const RunConfig& config)
      : model_(checkpoint::HuggingFaceModel::open(storage, config.checkpoint.start_from)) {
    require_shape(config, model_->config());
    if (!model_->tokenizer_problem().empty())
      base::log_warning("{}: {}", kKey, model_->tokenizer_problem());
    if (model_->is_tied())
      base::log_warning("{}: the head is the embedding there; here each is trained by itself",
                        kKey);
  }
  KnownTokenizer tokenizer() const override {
    return {.record = model_->tokenizer(), .where = kKey};
  }
  std::vector<checkpoint::TensorSource> tensors() const override { return model_->tensors(); }

 private:
  const std::unique_ptr<checkpoint::HuggingFaceModel> model_;
};

}  // namespace

std::unique_ptr<StartModel> StartModel::open(base::Storage& storage, const RunConfig& config) {
  const std::string& path = config.checkpoint.start_from;
  if (path.empty()) return nullptr;
  if (!storage.exists(path))
    throw base::bad_input(fmt::format("{}: {} is not there", kKey, path),
                          "it is the folder of a model of transformers, or of a checkpoint");
  if (is_checkpoint(storage, path)) return std::make_unique<FromCheckpoint>(storage, config);
  return std::make_unique<FromHuggingFace>(storage, config);
}

}  // namespace train
