#include "train/rank.h"

#include <algorithm>
#include <span>

namespace train {

Rank::Rank(backend::Backend& backend, const RunConfig& config, const MemoryPlan& plan)
    : engine(backend, config, plan),
      optimizer(config.optimizer, engine.parameters, backend, moment_place(config.node)),
      share_(RowShare::of(config.training, backend.communicator->rank_count())) {
  engine.parameters.initialize(uint64_t(config.seed));
}

Rank::StepPart Rank::step(const data::Batch& batch) {
  const float scale = batch.target_count > 0 ? 1.0f / float(batch.target_count) : 0.0f;
  optimizer.begin_step(batch.step);
  for (int64_t turn = 0; turn < share_.turns; ++turn) {
    engine.parameters.expect_more_micro_batches(turn + 1 < share_.turns);
    engine.transformer.forward_backward(rows_of_turn(batch, turn), scale);
  }
  optimizer.end_step();
  // Only here the host waits for the device.
  const StepPart part{.sums = engine.transformer.take_losses(), .update = optimizer.take_report()};
  // A collective that was torn down has left numbers that mean nothing: the next call says so.
  engine.backend.communicator->barrier();
  // Every buffer, plan of a product and piece of scratch memory is there now. Allocating beside
  // running kernels would stop the device, and with several ranks could stop it for ever.
  engine.backend.device->set_steady(true);
  return part;
}

int64_t Rank::validation_turns(const data::Sampler& sampler, int64_t rows) const {
  return train::validation_turns(engine, sampler, share_.micro_batch_rows, rows);
}

model::LossSums Rank::validate_turn(const data::Sampler& sampler, int64_t rows, int64_t turn) {
  const model::LossSums sums =
      train::validate_turn(engine, sampler, share_.micro_batch_rows, rows, turn);
  engine.backend.communicator->barrier();  // As at the end of a step.
  return sums;
}

model::HostBatch Rank::rows_of_turn(const data::Batch& batch, int64_t turn) {
  const int64_t length = engine.config.sequence_length;
  const int64_t ranks = engine.backend.communicator->rank_count();
  const auto batch_tokens = int64_t(batch.tokens.size());
  const int64_t wanted = share_.micro_batch_rows * length;
  const int64_t first = std::min(batch_tokens, (turn * ranks + number()) * wanted);
  const int64_t count = std::min(wanted, batch_tokens - first);
  const auto part = [&](const std::vector<int32_t>& all) {
    return std::span(all).subspan(size_t(first), size_t(count));
  };
  const model::HostBatch rows{part(batch.tokens), part(batch.targets), part(batch.document_starts)};
  if (count == wanted) return rows;
  const auto fill_up = [&](std::vector<int32_t>& target, std::span<const int32_t> there,
                           int32_t rest) {
    target.assign(there.begin(), there.end());
    target.resize(size_t(wanted), rest);
  };
  fill_up(tokens_, rows.tokens, 0);
  fill_up(targets_, rows.targets, -1);
  fill_up(document_starts_, rows.document_starts, 0);
  return {tokens_, targets_, document_starts_};
}

}  // namespace train
