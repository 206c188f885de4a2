#include "train/run_metrics.h"

#include <algorithm>

#include "base/version.h"

namespace train {
namespace {

void write_members(base::JsonWriter& line, const std::vector<net::PeerId>& members) {
  line.key("members").begin_array();
  for (const net::PeerId member : members) line.value(int64_t{member});
  line.end_array();
}

// What each contribution was in the chunks that this node summed.
void write_influences(base::JsonWriter& line, const outer::RoundFindings& findings) {
  line.field("summed_chunks", findings.summed_chunks)
      .field("mean_norm", findings.mean_norm)
      .field("momentum_norm", findings.momentum_norm);
  line.key("contributions").begin_array();
  for (const auto& influence : findings.influences) {
    line.begin_object()
        .field("member", int64_t{influence.peer})
        .field("norm", influence.norm)
        .field("cosine", influence.cosine)
        .field("share", influence.share)
        .end_object();
  }
  line.end_array();
}

// Only what is not as it should be.
void write_findings(base::JsonWriter& line, const outer::RoundFindings& findings) {
  if (findings.refused_chunks > 0) line.field("refused_chunks", findings.refused_chunks);
  if (findings.outliers.empty()) return;
  line.key("outliers").begin_array();
  for (const auto& outlier : findings.outliers) {
    line.begin_object()
        .field("member", int64_t{outlier.peer})
        .field("shortened_chunks", outlier.shortened_chunks)
        .field("left_out_chunks", outlier.left_out_chunks)
        .end_object();
  }
  line.end_array();
}

}  // namespace

RunMetrics::RunMetrics(observe::MetricsFile& file, const RunConfig& config, double peak_flops,
                       bool is_measured)
    : file_(file), config_(config), peak_flops_(peak_flops), is_peak_measured_(is_measured) {}

void RunMetrics::start(int64_t step, const std::string& device, int64_t ranks) {
  auto line = file_.begin_line("start");
  line.field("run", config_.name)
      .field("version", base::version())
      .field("device", device)
      .field("ranks", ranks)
      .field("parameters", model::parameter_count(config_.model))
      .field("step", step)
      .field("steps", config_.training.steps)
      .field("is_solo", config_.swarm.coordinator.empty())
      .field("price_per_gb", config_.node.price_per_gb);
  file_.write(line);
}

void RunMetrics::inner_step(const InnerStep& step) {
  const double tokens_per_second = double(step.tokens) / step.seconds;
  const double flops = tokens_per_second * model::flops_per_token_palm(config_.model);
  if (is_peak_measured_) peak_flops_ = std::max(peak_flops_, flops);
  auto line = file_.begin_line("inner_step");
  line.field("step", step.step)
      .field("loss", step.loss)
      .field("z_loss", step.z_loss)
      .field("grad_norm", step.gradient_norm)
      .field("lr", step.learning_rate)
      .field("tokens", step.tokens)
      .field("tokens_per_second", tokens_per_second)
      .field("mfu", flops / peak_flops_)
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
      .field("step", round.step)
      .field("begun_step", round.begun_step)
      .field("applied_step", round.applied_step)
      .field("overlap_steps", round.applied_step - round.begun_step);
  write_members(line, round.members);
  line.field("weight_tokens", round.weight_tokens)
      .field("digest", round.digest.get().hex())
      .field("bytes_sent", round.bytes_sent)
      .field("bytes_received", round.bytes_received)
      .field("seconds", round.seconds)
      .field("exposed_seconds", round.exposed_seconds)
      .field("encode_seconds", round.encode_seconds)
      .field("reduce_seconds", round.findings.reduce_seconds)
      .field("wait_seconds", round.wait_seconds)
      .field("apply_seconds", round.apply_seconds)
      .field("contributed", round.contributed)
      .field("codec", config_.outer.codec)
      .field("plan", net::name_of(round.plan));
  if (round.estimated_seconds > 0) line.field("estimated_seconds", round.estimated_seconds);
  write_influences(line, round.findings);
  if (round.was_damaged) line.field("damaged", true);
  write_findings(line, round.findings);
  file_.write(line);
}

void RunMetrics::membership(const outer::MembershipReport& membership) {
  auto line = file_.begin_line("membership");
  line.field("epoch", membership.epoch);
  write_members(line, membership.members);
  file_.write(line);
}

void RunMetrics::standing(const outer::StandingReport& standing) {
  auto line = file_.begin_line("standing");
  line.field("contributes", standing.contributes).field("reason", standing.reason);
  file_.write(line);
}

void write_incidents(observe::MetricsFile& file, const IncidentBox::Content& incidents) {
  const auto now = std::chrono::steady_clock::now();
  for (const auto& [incident, at] : incidents.entries) {
    auto line = file.begin_line("incident");
    line.field("what", net::name_of(incident.kind))
        .field("who", incident.who)
        .field("reason", incident.reason)
        .field("count", incident.count)
        .field("seconds_ago", std::chrono::duration<double>(now - at).count());
    file.write(line);
  }
  if (incidents.dropped_count == 0) return;
  auto line = file.begin_line("incident");
  line.field("what", "dropped").field("count", incidents.dropped_count);
  file.write(line);
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

void RunMetrics::checkpoint_failed(int64_t step, const std::string& reason, int64_t next_attempt) {
  auto line = file_.begin_line("checkpoint_failed");
  line.field("step", step).field("reason", reason).field("next_attempt", next_attempt);
  file_.write(line);
}

void RunMetrics::change(const checkpoint::ConfigChange& change) {
  auto line = file_.begin_line("change");
  line.field("step", change.step)
      .field("key", change.key)
      .field("before", change.before)
      .field("after", change.after);
  file_.write(line);
}

void RunMetrics::summary(const NodeSummary& summary) {
  auto line = file_.begin_line("summary");
  write_fields(line, summary);
  file_.write(line);
}

}  // namespace train
