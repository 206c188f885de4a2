#include <algorithm>

#include "base/json.h"
#include "observe/board_text.h"

namespace observe {
namespace {

void write_curve(base::JsonWriter& out, std::string_view name, const Curve& curve) {
  out.key(name).begin_array();
  for (const Curve::Point& point : curve.points())
    out.begin_array().value(point.x).value(point.mean()).end_array();
  out.end_array();
}

void write_curves(base::JsonWriter& out, const Board& board) {
  out.key("curves").begin_object();
  write_curve(out, "loss", board.loss_curve);
  write_curve(out, "validation_loss", board.validation_curve);
  write_curve(out, "tokens_per_second", board.speed_curve);
  write_curve(out, "utilisation", board.utilisation_curve);
  write_curve(out, "exposed_seconds", board.exposed_curve);
  out.end_object();
}

void write_step(base::JsonWriter& out, const Board& board) {
  out.field("step", board.step)
      .field("steps", board.steps_total)
      .field("seconds_left", board.seconds_left())
      .field("loss", board.loss)
      .field("validation_loss", board.validation_loss)
      .field("gradient_norm", board.gradient_norm)
      .field("learning_rate", board.learning_rate)
      .field("tokens", board.tokens)
      .field("tokens_per_second", board.tokens_per_second)
      .field("mfu", board.mfu)
      .field("samples", board.samples)
      .field("passes", board.passes)
      .field("skipped_steps", board.skipped_steps);
  out.key("step_seconds")
      .begin_object()
      .field("p50", board.step_seconds.at(0.5))
      .field("p99", board.step_seconds.at(0.99))
      .field("of_newest", int64_t(board.step_seconds.count()))
      .end_object();
}

void write_last_rounds(base::JsonWriter& out, const Board& board) {
  out.key("last").begin_array();
  for (const BoardRound& round : board.rounds) {
    out.begin_object()
        .field("round", round.round)
        .field("fragment", round.fragment)
        .field("step", round.step)
        .field("members", round.member_count)
        .field("time", round.time)
        .field("seconds", round.seconds)
        .field("exposed_seconds", round.exposed)
        .field("encode_seconds", round.encode)
        .field("wait_seconds", round.wait)
        .field("apply_seconds", round.apply)
        .field("sent_bytes", round.sent)
        .field("received_bytes", round.received)
        .field("contributed", round.contributed)
        .field("codec", round.codec)
        .field("plan", round.plan)
        .end_object();
  }
  out.end_array();
}

void write_rounds_of(base::JsonWriter& out, const Board& board) {
  out.key("rounds")
      .begin_object()
      .field("count", board.round_count)
      .field("seconds", board.round_seconds)
      .field("exposed_seconds", board.exposed_seconds)
      .field("sent_bytes", board.sent_bytes)
      .field("received_bytes", board.received_bytes)
      .field("price_per_gb", board.price_per_gb)
      .field("price", board.price());
  write_last_rounds(out, board);
  out.end_object();
}

void write_members_of(base::JsonWriter& out, const Board& board) {
  out.key("swarm").begin_object().field("epoch", board.epoch).key("members").begin_array();
  for (const int64_t member : board.members) out.value(member);
  out.end_array()
      .field("contributes", board.contributes)
      .field("reason", board.standing_reason)
      .key("contributions")
      .begin_array();
  for (const BoardContribution& one : board.contributions) {
    out.begin_object()
        .field("member", one.member)
        .field("norm", one.norm)
        .field("cosine", one.cosine)
        .field("share", one.share)
        .end_object();
  }
  out.end_array().key("incidents").begin_object();
  for (const auto& [kind, count] : board.incidents) out.field(kind, count);
  out.end_object().end_object();
}

void write_checkpoint(base::JsonWriter& out, const Board& board) {
  out.key("checkpoints")
      .begin_object()
      .field("count", board.checkpoints)
      .field("failed", board.failed_checkpoints)
      .field("step", board.checkpoint_step)
      .field("bytes", board.checkpoint_bytes)
      .field("seconds", board.checkpoint_seconds)
      .end_object();
}

void write_events(base::JsonWriter& out, const Board& board) {
  out.key("events").begin_array();
  for (const BoardEvent& event : board.events) {
    out.begin_object()
        .field("time", event.time)
        .field("kind", event.kind)
        .field("text", event.text)
        .field("cause", event.cause)
        .end_object();
  }
  out.end_array();
}

}  // namespace

std::string status_json(const Board& board, double now, std::string_view directory) {
  base::JsonWriter out;
  out.begin_object();
  if (!directory.empty()) out.field("directory", directory);
  out.field("run", board.run)
      .field("node", board.node)
      .field("version", board.version)
      .field("device", board.device)
      .field("parameters", board.parameters)
      .field("state", name_of(board.state))
      .field("starts", board.starts)
      .field("started", board.started)
      .field("time", board.time)
      .field("age_seconds", board.time > 0 ? std::max(0.0, now - board.time) : kUnknown)
      .field("unreadable_lines", board.unreadable_lines)
      .field("utilisation", board.utilisation());
  write_step(out, board);
  write_rounds_of(out, board);
  write_members_of(out, board);
  write_checkpoint(out, board);
  write_events(out, board);
  write_curves(out, board);
  out.end_object();
  return out.text();
}

}  // namespace observe
