#include "train/run_metrics.h"

namespace train {
namespace {

void write_members(base::JsonWriter& line, const std::vector<net::PeerId>& members) {
  line.key("members").begin_array();
  for (const net::PeerId member : members) line.value(int64_t{member});
  line.end_array();
}

}  // namespace

RunMetrics::RunMetrics(observe::MetricsFile& file, const RunConfig& config, double peak_flops)
    : file_(file), config_(config), peak_flops_(peak_flops) {}

void RunMetrics::inner_step(const InnerStep& step) {
  const double tokens_per_second = double(step.tokens) / step.seconds;
  auto line = file_.begin_line("inner_step");
  line.field("step", step.step)
      .field("loss", step.loss)
      .field("z_loss", step.z_loss)
      .field("grad_norm", step.gradient_norm)
      .field("lr", step.learning_rate)
      .field("tokens", step.tokens)
      .field("tokens_per_second", tokens_per_second)
      .field("mfu", tokens_per_second * model::flops_per_token_palm(config_.model) / peak_flops_)
      .field("seconds", step.seconds)
      .field("samples", step.samples)
      .field("passes", step.passes);
  if (step.skipped) line.field("skipped", true);
  file_.write(line);
}

void RunMetrics::round(const outer::RoundReport& round) {
  auto line = file_.begin_line("round");
  line.field("round", round.round)
      .field("fragment", round.fragment)
      .field("epoch", round.epoch)
      .field("step", round.step);
  write_members(line, round.members);
  line.field("weight_tokens", round.weight_tokens)
      .field("digest", round.digest.hex())
      .field("bytes_sent", round.bytes_sent)
      .field("bytes_received", round.bytes_received)
      .field("seconds", round.seconds)
      .field("exposed_seconds", round.exposed_seconds)
      .field("apply_seconds", round.apply_seconds)
      .field("contributed", round.contributed)
      .field("codec", config_.outer.codec)
      .field("plan", "direct");
  file_.write(line);
}

void RunMetrics::membership(const outer::MembershipReport& membership) {
  auto line = file_.begin_line("membership");
  line.field("epoch", membership.epoch);
  write_members(line, membership.members);
  file_.write(line);
}

void RunMetrics::evaluation(int64_t step, const Validation& validation) {
  auto line = file_.begin_line("evaluation");
  line.field("step", step)
      .field("validation_loss", validation.loss)
      .field("tokens", validation.tokens);
  file_.write(line);
}

void RunMetrics::checkpoint(int64_t step, const checkpoint::SaveReport& report, double seconds) {
  auto line = file_.begin_line("checkpoint");
  line.field("step", step)
      .field("directory", report.directory)
      .field("bytes", report.bytes)
      .field("seconds", seconds);
  file_.write(line);
}

void RunMetrics::summary(const NodeSummary& summary) {
  auto line = file_.begin_line("summary");
  write_fields(line, summary);
  file_.write(line);
}

}  // namespace train
