// All ranks of a node as one: the devices, a thread for each, and what the node wants of them
// together.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "train/rank.h"
#include "train/rank_threads.h"

namespace train {

class RankTeam {
 public:
  // Plans the memory, starts the threads and builds a Rank in each: see require_plan(). `config`
  // outlives the object.
  RankTeam(std::vector<backend::Backend> backends, const RunConfig& config);
  ~RankTeam();
  RankTeam(const RankTeam&) = delete;
  RankTeam& operator=(const RankTeam&) = delete;

  int count() const { return int(backends_.size()); }
  const MemoryPlan& plan() const { return plan_; }
  // For other threads than its own: while no command runs.
  Rank& rank(int number) { return *ranks_[size_t(number)]; }
  Rank& first() { return rank(0); }

  // In every rank's thread: see RankThreads::run().
  void run(const std::function<void(Rank&)>& body);

  // One step of all; the losses are those of the whole batch.
  Rank::StepPart step(const data::Batch& batch);
  // Nothing if a stop was requested before the end: it is asked for after every micro-batch.
  std::optional<Validation> validate(const data::Sampler& sampler, int64_t rows,
                                     const std::function<bool()>& stop_requested);
  // What model FLOPS utilisation is a share of: of all devices together. FLOP/s.
  double peak_flops();

 private:
  std::vector<backend::Backend> backends_;
  const RunConfig& config_;
  const MemoryPlan plan_;
  RankThreads threads_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace train
