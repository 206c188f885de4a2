// The lines of a run's metrics.jsonl, one function per event. docs/formats/metrics.md lists the
// keys.
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "observe/metrics.h"
#include "outer/outer_loop.h"
#include "train/engine.h"
#include "train/incident_box.h"
#include "train/node.h"
#include "train/trainer.h"

namespace train {

// Also for who has no other metrics: a coordinator on its own.
void write_incidents(observe::MetricsFile& file, const IncidentBox::Content& incidents);

class RunMetrics {
 public:
  // `peak_flops`: what MFU is a share of. One that `is_measured` rises to what a step reaches,
  // which shows that the measurement was too low.
  RunMetrics(observe::MetricsFile& file, const RunConfig& config, double peak_flops,
             bool is_measured);

  // Of a process: what the other lines do not repeat. `step`: done before.
  void start(int64_t step, const std::string& device, int64_t ranks);
  void inner_step(const InnerStep& step);
  void round(const outer::RoundReport& round);
  void membership(const outer::MembershipReport& membership);
  void standing(const outer::StandingReport& standing);
  void incidents(const IncidentBox::Content& incidents) { write_incidents(file_, incidents); }
  void evaluation(int64_t step, const Validation& validation);
  void checkpoint(int64_t step, const checkpoint::SaveReport& report, double seconds);
  void checkpoint_failed(int64_t step, const std::string& reason, int64_t next_attempt);
  void change(const checkpoint::ConfigChange& change);
  void summary(const NodeSummary& summary);

 private:
  observe::MetricsFile& file_;
  const RunConfig& config_;
  double peak_flops_;
  const bool is_peak_measured_;
};

}  // namespace train
