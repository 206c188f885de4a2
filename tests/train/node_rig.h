// What of a node trains, without what makes it a member of a swarm.
#pragma once

#include <cmath>
#include <vector>

#include "train/master_parameters.h"
#include "train/trainer.h"

namespace train_test {

struct NodeRig {
  explicit NodeRig(const train::RunConfig& run) : NodeRig(run, train::choose_backends(run.node)) {}
  NodeRig(const train::RunConfig& run, std::vector<backend::Backend> backends)
      : config(run),
        ranks(std::move(backends), config),
        trainer(config.training, ranks),
        masters(ranks) {}

  const shard::Layout& layout() { return ranks.first().engine.layout; }
  std::vector<float> parameters() {
    std::vector<float> all;
    for (size_t u = 0; u < layout().units.size(); ++u) {
      std::vector<float> unit(size_t(layout().units[u].element_count), NAN);
      masters.read(int64_t(u), 0, unit);
      all.insert(all.end(), unit.begin(), unit.end());
    }
    return all;
  }

  const train::RunConfig config;
  train::RankTeam ranks;
  train::Trainer trainer;
  train::MasterParameters masters;
};

// Of the difference's length.
inline double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += double(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace train_test
