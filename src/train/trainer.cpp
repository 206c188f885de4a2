#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <fmt/format.h>

#include "base/log.h"

namespace train {

Trainer::Trainer(const TrainingConfig& config, RankTeam& ranks) : config_(config), ranks_(ranks) {}

InnerStep Trainer::step(const data::Batch& batch) {
  const auto begin = std::chrono::steady_clock::now();
  const auto [sums, update] = ranks_.step(batch);
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
  return report;
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
    throw Diverged(
        base::ExitCode::kBadInput,
        fmt::format("{} steps in a row, up to step {}, had a loss or gradient that is not finite",
                    skipped_in_a_row_, report.step),
        "go on from the newest checkpoint with a lower --change optimizer.learning_rate=...; the "
        "second failure in a row at one step makes the next start go back one checkpoint");
  }
}

}  // namespace train
