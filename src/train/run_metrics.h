// The lines of a run's metrics.jsonl, one function per event. docs/formats/metrics.md lists the
// keys.
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "observe/metrics.h"
#include "outer/outer_loop.h"
#include "train/engine.h"
#include "train/node.h"
#include "train/trainer.h"

namespace train {

class RunMetrics {
 public:
  // `peak_flops`: what MFU is a share of.
  RunMetrics(observe::MetricsFile& file, const RunConfig& config, double peak_flops);

  void inner_step(const InnerStep& step);
  void round(const outer::RoundReport& round);
  void membership(const outer::MembershipReport& membership);
  void standing(const outer::StandingReport& standing);
  void evaluation(int64_t step, const Validation& validation);
  void checkpoint(int64_t step, const checkpoint::SaveReport& report, double seconds);
  void summary(const NodeSummary& summary);

 private:
  observe::MetricsFile& file_;
  const RunConfig& config_;
  const double peak_flops_;
};

}  // namespace train
