// The names follow Prometheus' conventions: base units (seconds, bytes, ratios), `_total` for what
// only grows. Sums are over all processes that wrote the run directory, so that a restart resets
// none.
#include <cmath>
#include <fmt/format.h>
#include <initializer_list>
#include <utility>

#include "observe/board_text.h"

namespace observe {
namespace {

// In a label's value.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\') {
      result += "\\\\";
    } else if (c == '"') {
      result += "\\\"";
    } else if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result;
}

class Families {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  Families& family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
    return *this;
  }
  Families& gauge(std::string_view name, std::string_view help) {
    return family(name, "gauge", help);
  }
  Families& counter(std::string_view name, std::string_view help) {
    return family(name, "counter", help);
  }
  // What is not known has no sample.
  Families& sample(double value, Labels labels = {}, std::string_view suffix = "") {
    if (std::isnan(value)) return *this;
    std::string inside;
    for (const auto& [label, content] : labels)
      inside += fmt::format("{}{}=\"{}\"", inside.empty() ? "" : ",", label, escaped(content));
    if (!inside.empty()) inside = "{" + inside + "}";
    text_ += fmt::format("{}{}{} {}\n", name_, suffix, inside, number(value));
    return *this;
  }
  Families& sample(int64_t value, Labels labels = {}, std::string_view suffix = "") {
    return sample(double(value), labels, suffix);
  }
  const std::string& text() const { return text_; }

 private:
  static std::string number(double value) {
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    return fmt::format("{}", value);
  }

  std::string name_;
  std::string text_;
};

void write_process(Families& out, const Board& board, std::string_view version) {
  out.gauge("atoll_build_info", "1, with the version of the program.")
      .sample(1.0, {{"version", version}});
  out.gauge("atoll_run_info", "1, with the names of run, node and device.")
      .sample(1.0, {{"run", board.run}, {"node", board.node}, {"device", board.device}});
  out.gauge("atoll_start_time_seconds", "When this process began to train, since 1970.")
      .sample(board.started > 0 ? board.started : kUnknown);
  out.counter("atoll_starts_total", "Processes that began to train in this run directory.")
      .sample(board.starts);
  out.gauge("atoll_last_event_time_seconds", "When the newest line of metrics was written.")
      .sample(board.time > 0 ? board.time : kUnknown);
  out.gauge("atoll_finished", "1 once all steps are done.")
      .sample(board.state == Board::State::kFinished ? 1.0 : 0.0);
  out.gauge("atoll_parameters", "Of the model.").sample(board.parameters);
}

void write_steps(Families& out, const Board& board) {
  out.gauge("atoll_step", "Inner steps done.").sample(board.step);
  out.gauge("atoll_target_steps", "Inner steps of the whole run.").sample(board.steps_total);
  out.gauge("atoll_loss", "Of the newest step, nats per target.").sample(board.loss);
  out.gauge("atoll_validation_loss", "Of the newest evaluation, nats per target.")
      .sample(board.validation_loss);
  out.gauge("atoll_gradient_norm", "Of the newest step, before clipping.")
      .sample(board.gradient_norm);
  out.gauge("atoll_learning_rate", "Of the newest step.").sample(board.learning_rate);
  out.counter("atoll_tokens_total", "Tokens that this node trained on.").sample(board.tokens);
  out.gauge("atoll_tokens_per_second", "Of the newest step.").sample(board.tokens_per_second);
  out.gauge("atoll_mfu_ratio", "Model FLOPS utilisation of the newest step.").sample(board.mfu);
  out.family("atoll_step_seconds", "summary", "Time of inner steps; quantiles of the newest 1024.")
      .sample(board.step_seconds.at(0.5), {{"quantile", "0.5"}})
      .sample(board.step_seconds.at(0.99), {{"quantile", "0.99"}})
      .sample(board.step_seconds_sum, {}, "_sum")
      .sample(board.step_count, {}, "_count");
  out.counter("atoll_skipped_steps_total", "Steps whose loss or gradient was not finite.")
      .sample(board.skipped_steps);
  out.gauge("atoll_data_samples", "Samples of the run's data that are handed out to all nodes.")
      .sample(board.samples);
  out.gauge("atoll_data_passes", "Passes over the data that these are.").sample(board.passes);
}

void write_rounds(Families& out, const Board& board) {
  out.counter("atoll_rounds_total", "Rounds whose results this node merged.")
      .sample(board.round_count);
  out.counter("atoll_round_seconds_total", "From opening to commit of these rounds.")
      .sample(board.round_seconds);
  out.counter("atoll_round_exposed_seconds_total",
              "Training stood still for these rounds: encoding, waiting for the commit, applying.")
      .sample(board.encode_seconds, {{"part", "encode"}})
      .sample(board.wait_seconds, {{"part", "wait"}})
      .sample(board.apply_seconds, {{"part", "apply"}});
  out.gauge("atoll_utilisation_ratio",
            "Share of this process's training time in which no round stood in the way.")
      .sample(board.utilisation());
  out.counter("atoll_round_sent_bytes_total", "Sent in rounds, frames included.")
      .sample(board.sent_bytes);
  out.counter("atoll_round_received_bytes_total", "Received in rounds, frames included.")
      .sample(board.received_bytes);
  out.gauge("atoll_price_per_sent_gigabyte", "As node.price_per_gb says; 0: not given.")
      .sample(board.price_per_gb);
}

void write_swarm(Families& out, const Board& board) {
  out.gauge("atoll_members", "Of the swarm, as far as this node has heard.")
      .sample(int64_t(board.members.size()));
  out.gauge("atoll_epoch", "Of the list of members.").sample(board.epoch);
  out.gauge("atoll_contributing", "0 while the coordinator leaves this node's contributions out.")
      .sample(board.contributes ? 1.0 : 0.0);
  out.counter("atoll_incidents_total", "Lines of what went wrong with whom, by kind.");
  auto incidents = board.incidents;
  for (const std::string& kind : incident_kinds()) incidents[kind];
  for (const auto& [kind, count] : incidents) out.sample(count, {{"kind", kind}});
}

void write_checkpoints(Families& out, const Board& board) {
  const bool has_one = board.checkpoints > 0;
  out.counter("atoll_checkpoints_total", "Checkpoints written.").sample(board.checkpoints);
  out.counter("atoll_failed_checkpoints_total", "Checkpoints that could not be written.")
      .sample(board.failed_checkpoints);
  out.gauge("atoll_checkpoint_step", "Step of the newest checkpoint.")
      .sample(has_one ? double(board.checkpoint_step) : kUnknown);
  out.gauge("atoll_checkpoint_seconds", "What writing it took.").sample(board.checkpoint_seconds);
  out.gauge("atoll_checkpoint_bytes", "What it takes on the disk.")
      .sample(has_one ? double(board.checkpoint_bytes) : kUnknown);
}

}  // namespace

std::string prometheus_text(const Board& board, std::string_view program_version) {
  Families out;
  write_process(out, board, program_version);
  write_steps(out, board);
  write_rounds(out, board);
  write_swarm(out, board);
  write_checkpoints(out, board);
  return out.text();
}

}  // namespace observe
