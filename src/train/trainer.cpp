#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <span>

#include "base/log.h"

namespace train {

Trainer::Trainer(const TrainingConfig& config, Engine& engine, optim::Optimizer& optimizer)
    : config_(config), engine_(engine), optimizer_(optimizer) {}

InnerStep Trainer::step(const data::Batch& batch) {
  const auto begin = std::chrono::steady_clock::now();
  optimizer_.begin_step(batch.step);
  accumulate_gradients(batch);
  optimizer_.end_step();
  // Only here the host waits for the device.
  const model::LossSums sums = engine_.transformer.take_losses();
  const auto update = optimizer_.take_report();
  const double count = double(std::max<int64_t>(sums.count, 1));
  const InnerStep report = {
      .step = batch.step + 1,
      .loss = sums.loss / count,
      .z_loss = sums.z_loss / count,
      .gradient_norm = update.gradient_norm,
      .learning_rate = update.learning_rate,
      .tokens = int64_t(batch.tokens.size()),
      .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
      .skipped = update.skipped,
  };
  count_skipped(report);
  // Every buffer, plan of a product and piece of scratch memory is there now. Allocating beside
  // running kernels would stop the device, and with several ranks could stop it for ever.
  engine_.backend.device->set_steady(true);
  return report;
}

void Trainer::accumulate_gradients(const data::Batch& batch) {
  const size_t micro_tokens = size_t(config_.micro_batch_rows * engine_.config.sequence_length);
  const float scale = batch.target_count > 0 ? 1.0f / float(batch.target_count) : 0.0f;
  for (size_t first = 0; first < batch.tokens.size(); first += micro_tokens) {
    const auto part = [&](const std::vector<int32_t>& all) {
      return std::span(all).subspan(first, micro_tokens);
    };
    engine_.transformer.forward_backward(
        {part(batch.tokens), part(batch.targets), part(batch.document_starts)}, scale);
  }
}

void Trainer::count_skipped(const InnerStep& report) {
  if (!report.skipped) {
    skipped_in_a_row_ = 0;
    return;
  }
  ++skipped_in_a_row_;
  base::log_warning("step {}: the gradient norm is {}: the step is skipped ({} in a row)",
                    report.step, report.gradient_norm, skipped_in_a_row_);
  if (skipped_in_a_row_ >= config_.nonfinite_steps_max) {
    throw base::bad_input(fmt::format("{} steps in a row had a loss or gradient that is not finite",
                                      skipped_in_a_row_),
                          "lower optimizer.learning_rate or lengthen "
                          "optimizer.schedule.warmup_steps, and go on from an "
                          "earlier checkpoint");
  }
}

}  // namespace train
