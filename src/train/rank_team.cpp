#include "train/rank_team.h"

#include "base/log.h"
#include "base/numa.h"
#include "train/bench.h"

namespace train {

RankTeam::RankTeam(std::vector<backend::Backend> backends, const RunConfig& config)
    : backends_(std::move(backends)),
      config_(config),
      plan_(require_plan(config, backends_)),
      threads_(
          {.ranks = int(backends_.size()),
           .enter =
               [this](int rank) {
                 backend::Device& device = *backends_[size_t(rank)].device;
                 device.enter_thread();
                 if (device.numa_node() >= 0) base::pin_thread_to_numa_node(device.numa_node());
               },
           .abort =
               [this](const std::string& reason) { backends_.front().communicator->abort(reason); },
           .check = [this] { backends_.front().communicator->check(); }}),
      ranks_(backends_.size()) {
  const RowShare share = RowShare::of(config.training, count());
  const int64_t slots = share.turns * share.micro_batch_rows * count();
  if (slots != config.training.batch_rows) {
    base::log_warning(
        "{} ranks compute {} rows per step, of which {} count; a training.batch_rows of {} would "
        "cost as much",
        count(), slots, config.training.batch_rows, slots);
  }
  threads_.run([&](int rank) {
    ranks_[size_t(rank)] = std::make_unique<Rank>(backends_[size_t(rank)], config_, plan_);
  });
}

// Where they were built: a device's libraries want that, and some collectives are part of it. A
// device that is lost may hang in it.
RankTeam::~RankTeam() {
  constexpr std::chrono::seconds kTearDownMax(60);
  try {
    threads_.run_within(kTearDownMax, [&](int rank) {
      ranks_[size_t(rank)].reset();
      backends_[size_t(rank)].communicator.reset();
    });
  } catch (const std::exception& error) {
    base::log_warning("tearing down: {}", error.what());
  }
}

void RankTeam::run(const std::function<void(Rank&)>& body) {
  threads_.run([&](int rank) { body(*ranks_[size_t(rank)]); });
}

Rank::StepPart RankTeam::step(const data::Batch& batch) {
  std::vector<Rank::StepPart> parts(ranks_.size());
  run([&](Rank& rank) { parts[size_t(rank.number())] = rank.step(batch); });
  Rank::StepPart all = parts.front();
  for (size_t rank = 1; rank < parts.size(); ++rank) {
    all.sums.loss += parts[rank].sums.loss;
    all.sums.z_loss += parts[rank].sums.z_loss;
    all.sums.count += parts[rank].sums.count;
  }
  return all;
}

// Turn by turn, for all ranks must stop after the same one.
std::optional<Validation> RankTeam::validate(const data::Sampler& sampler, int64_t rows,
                                             const std::function<bool()>& stop_requested) {
  std::vector<model::LossSums> parts(ranks_.size());
  const int64_t turns = first().validation_turns(sampler, rows);
  for (int64_t turn = 0; turn < turns; ++turn) {
    if (stop_requested()) return std::nullopt;
    run([&](Rank& rank) {
      add(parts[size_t(rank.number())], rank.validate_turn(sampler, rows, turn));
    });
  }
  model::LossSums all;
  for (const model::LossSums& part : parts) add(all, part);
  return mean_of(all);
}

double RankTeam::peak_flops() {
  std::vector<double> peaks(ranks_.size());
  run([&](Rank& rank) { peaks[size_t(rank.number())] = train::peak_flops(rank.engine.backend); });
  double sum = 0;
  for (const double peak : peaks) sum += peak;
  return sum;
}

}  // namespace train
