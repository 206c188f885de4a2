#include "observe/board.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fmt/format.h>
#include <optional>

#include "base/json.h"

namespace observe {
namespace {

constexpr size_t kTextMax = 400;

// A line's values, each with something to go on with where it is missing.
class Line {
 public:
  explicit Line(const base::JsonValue& value) : value_(value) {}

  std::string text(std::string_view key) const {
    const auto found = value_.get(key);
    const auto text = found ? found->as_string() : base::Result<std::string>(std::string());
    return text ? text->substr(0, kTextMax) : std::string();
  }
  double number(std::string_view key) const {
    const auto found = value_.get(key);
    if (!found) return kUnknown;
    const auto number = found->as_number();
    return number ? *number : kUnknown;
  }
  // For sums: nothing is added of what is unknown, or less than nothing.
  double amount(std::string_view key) const {
    const double found = number(key);
    return std::isfinite(found) && found > 0 ? found : 0;
  }
  int64_t integer(std::string_view key) const {
    const auto found = value_.get(key);
    if (!found) return 0;
    const auto number = found->as_integer();
    return number ? *number : 0;
  }
  bool is_true(std::string_view key) const {
    const auto found = value_.get(key);
    if (!found) return false;
    const auto truth = found->as_boolean();
    return truth && *truth;
  }
  // Of a list, at most kListMax.
  std::vector<base::JsonValue> list(std::string_view key) const {
    std::vector<base::JsonValue> result;
    const auto found = value_.get(key);
    if (!found || !found->is_array()) return result;
    const int64_t count = std::min(found->count(), int64_t{Board::kListMax});
    for (int64_t i = 0; i < count; ++i) result.push_back(*found->at(i));
    return result;
  }

 private:
  const base::JsonValue& value_;
};

void add_event(Board& board, std::string kind, std::string text, std::string cause = {}) {
  board.events.push_back({.time = board.time,
                          .kind = std::move(kind),
                          .text = std::move(text),
                          .cause = std::move(cause)});
  if (board.events.size() > Board::kEventsMax) board.events.pop_front();
}

void begin_process(Board& board) {
  board.pace = {};
  board.state = Board::State::kStarting;
}

void add_start(Board& board, const Line& line) {
  begin_process(board);
  ++board.starts;
  board.started = board.time;
  board.run = line.text("run");
  board.version = line.text("version");
  board.device = line.text("device");
  board.parameters = line.integer("parameters");
  board.steps_total = line.integer("steps");
  board.price_per_gb = line.amount("price_per_gb");
  add_event(board, "start",
            fmt::format("Atoll {} on {}, from step {}", board.version, board.device,
                        line.integer("step")));
}

void take_back_steps(Board& board, int64_t from) {
  for (Curve* curve : {&board.loss_curve, &board.validation_curve, &board.speed_curve,
                       &board.utilisation_curve, &board.exposed_curve})
    curve->drop_from(double(from));
}

// The rounds that ended before this step stood in the way since the last ones did.
void end_interval(Board& board, double step_begin) {
  Board::Pace& pace = board.pace;
  const double passed = step_begin - pace.interval_begin;
  if (pace.interval_exposed <= 0 || passed <= 0) return;
  board.utilisation_curve.add(double(board.step),
                              std::clamp(1 - pace.interval_exposed / passed, 0.0, 1.0));
  pace.interval_exposed = 0;
  pace.interval_begin = step_begin;
}

void add_step(Board& board, const Line& line) {
  const int64_t step = line.integer("step");
  const double seconds = line.amount("seconds");
  if (board.state == Board::State::kFinished || board.state == Board::State::kStopped)
    begin_process(board);  // Before there were `start` lines.
  board.state = Board::State::kTraining;
  if (board.pace.begin == 0) board.pace.begin = board.pace.interval_begin = board.time - seconds;
  if (step <= board.step) take_back_steps(board, step);
  end_interval(board, board.time - seconds);
  board.pace.end = board.time;
  ++board.pace.steps;
  board.step = step;
  board.samples = line.integer("samples");
  board.loss = line.number("loss");
  board.gradient_norm = line.number("grad_norm");
  board.learning_rate = line.number("lr");
  board.tokens_per_second = line.number("tokens_per_second");
  board.mfu = line.number("mfu");
  board.passes = line.number("passes");
  board.tokens += line.integer("tokens");
  ++board.step_count;
  board.step_seconds_sum += seconds;
  board.step_seconds.add(seconds);
  board.loss_curve.add(double(step), board.loss);
  board.speed_curve.add(double(step), board.tokens_per_second);
  if (!line.is_true("skipped")) return;
  ++board.skipped_steps;
  add_event(board, "skipped", fmt::format("step {} changed nothing", step),
            "loss or gradient was not finite");
}

void add_contributions(Board& board, const Line& line) {
  board.contributions.clear();
  for (const base::JsonValue& one : line.list("contributions")) {
    const Line part(one);
    board.contributions.push_back({.member = part.integer("member"),
                                   .norm = part.number("norm"),
                                   .cosine = part.number("cosine"),
                                   .share = part.number("share")});
  }
}

// Only what is not as it should be.
void tell_findings(Board& board, const Line& line, const BoardRound& round) {
  const std::string where = fmt::format("round {} of fragment {}", round.round, round.fragment);
  if (line.is_true("damaged"))
    add_event(board, "round", where + ": this node brought nothing",
              "its parameters were not finite");
  if (const int64_t refused = line.integer("refused_chunks"); refused > 0)
    add_event(board, "round", fmt::format("{}: {} chunks stayed as they were", where, refused));
  for (const base::JsonValue& one : line.list("outliers")) {
    const Line part(one);
    add_event(board, "round",
              fmt::format("{}: member {} was unlike the others: {} chunks shortened, {} left out",
                          where, part.integer("member"), part.integer("shortened_chunks"),
                          part.integer("left_out_chunks")));
  }
}

void add_round(Board& board, const Line& line) {
  const BoardRound round{.round = line.integer("round"),
                         .fragment = line.integer("fragment"),
                         .step = line.integer("step"),
                         .member_count = int64_t(line.list("members").size()),
                         .time = board.time,
                         .seconds = line.amount("seconds"),
                         .exposed = line.amount("exposed_seconds"),
                         .encode = line.amount("encode_seconds"),
                         .wait = line.amount("wait_seconds"),
                         .apply = line.amount("apply_seconds"),
                         .sent = line.integer("bytes_sent"),
                         .received = line.integer("bytes_received"),
                         .contributed = line.is_true("contributed"),
                         .codec = line.text("codec"),
                         .plan = line.text("plan")};
  ++board.round_count;
  board.sent_bytes += round.sent;
  board.received_bytes += round.received;
  board.round_seconds += round.seconds;
  board.exposed_seconds += round.exposed;
  board.encode_seconds += round.encode;
  board.wait_seconds += round.wait;
  board.apply_seconds += round.apply;
  board.pace.end = board.time;
  board.pace.exposed += round.exposed;
  board.pace.interval_exposed += round.exposed;
  board.exposed_curve.add(double(board.step), round.exposed);
  add_contributions(board, line);
  tell_findings(board, line, round);
  board.rounds.push_back(round);
  if (board.rounds.size() > Board::kRoundsMax) board.rounds.pop_front();
}

void add_membership(Board& board, const Line& line) {
  board.epoch = line.integer("epoch");
  board.members.clear();
  std::string names;
  for (const base::JsonValue& one : line.list("members")) {
    const auto member = one.as_integer();
    board.members.push_back(member ? *member : -1);
    names += fmt::format("{}{}", names.empty() ? "" : ", ", board.members.back());
  }
  add_event(board, "membership",
            fmt::format("epoch {}: {} members ({})", board.epoch, board.members.size(), names));
}

void add_standing(Board& board, const Line& line) {
  board.contributes = line.is_true("contributes");
  board.standing_reason = line.text("reason");
  add_event(board, "standing",
            board.contributes ? "this node contributes" : "this node does not contribute",
            board.standing_reason);
}

void add_incident(Board& board, const Line& line) {
  const std::string what = line.text("what");
  const int64_t count = line.integer("count");
  if (board.incidents.size() < Board::kListMax || board.incidents.contains(what))
    ++board.incidents[what];
  const std::string times = count > 1 ? fmt::format(" ({} so far)", count) : std::string();
  add_event(board, "incident: " + what, line.text("who") + times, line.text("reason"));
}

void add_evaluation(Board& board, const Line& line) {
  board.validation_loss = line.number("validation_loss");
  board.validation_curve.add(double(line.integer("step")), board.validation_loss);
}

void add_checkpoint(Board& board, const Line& line) {
  ++board.checkpoints;
  board.checkpoint_step = line.integer("step");
  board.checkpoint_bytes = line.integer("bytes");
  board.checkpoint_seconds = line.number("seconds");
  add_event(board, "checkpoint",
            fmt::format("step {}: {:.1f} MB in {:.2f} s", board.checkpoint_step,
                        double(board.checkpoint_bytes) / 1e6, board.checkpoint_seconds));
}

void add_failed_checkpoint(Board& board, const Line& line) {
  ++board.failed_checkpoints;
  add_event(board, "checkpoint failed",
            fmt::format("step {}; the next attempt is after step {}", line.integer("step"),
                        line.integer("next_attempt")),
            line.text("reason"));
}

void add_change(Board& board, const Line& line) {
  add_event(board, "change",
            fmt::format("{}: {} became {}, from step {} on", line.text("key"), line.text("before"),
                        line.text("after"), line.integer("step")));
}

void add_summary(Board& board, const Line& line) {
  const bool is_finished = line.is_true("finished");
  board.state = is_finished ? Board::State::kFinished : Board::State::kStopped;
  board.pace.told = line.number("utilisation");
  add_event(board, is_finished ? "finished" : "stopped",
            fmt::format("at step {}", line.integer("step")));
}

const std::map<std::string, void (*)(Board&, const Line&), std::less<>>& adders() {
  static const std::map<std::string, void (*)(Board&, const Line&), std::less<>> all = {
      {"start", add_start},           {"inner_step", add_step},
      {"round", add_round},           {"membership", add_membership},
      {"standing", add_standing},     {"incident", add_incident},
      {"evaluation", add_evaluation}, {"checkpoint", add_checkpoint},
      {"change", add_change},         {"checkpoint_failed", add_failed_checkpoint},
      {"summary", add_summary}};
  return all;
}

}  // namespace

void Board::add(std::string_view line) {
  if (line.empty()) return;
  const auto value = base::JsonValue::parse(line);
  if (!value || !value->is_object()) {
    ++unreadable_lines;
    return;
  }
  const Line values(*value);
  const auto adder = adders().find(values.text("event"));
  if (adder == adders().end()) return;  // Of a newer program.
  ++lines;
  if (const double at = parse_utc(values.text("time")); at > 0) time = at;
  if (node.empty()) node = values.text("node");
  adder->second(*this, values);
}

double Board::utilisation() const {
  if (std::isfinite(pace.told)) return pace.told;
  const double passed = pace.end - pace.begin;
  if (pace.begin == 0 || passed <= 0) return kUnknown;
  return std::clamp(1 - pace.exposed / passed, 0.0, 1.0);
}

double Board::seconds_left() const {
  if (state != State::kTraining || steps_total <= 0 || pace.steps == 0) return kUnknown;
  const double per_step = (pace.end - pace.begin) / double(pace.steps);
  return per_step * double(std::max<int64_t>(0, steps_total - step));
}

const char* name_of(Board::State state) {
  switch (state) {
    case Board::State::kStarting:
      return "starting";
    case Board::State::kTraining:
      return "training";
    case Board::State::kFinished:
      return "finished";
    case Board::State::kStopped:
      return "stopped";
  }
  CHECK(false, "state {}", int(state));
}

std::vector<std::string> incident_kinds() {
  return {"refused", "rejected", "left", "lost", "excluded", "dropped"};
}

double parse_utc(const std::string& text) {
  std::tm parts{};
  double second = 0;
  char end = 0;
  const int found =
      std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%lf%c", &parts.tm_year, &parts.tm_mon,
                  &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &second, &end);
  if (found != 7 || end != 'Z' || !(second >= 0 && second < 61)) return 0;
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  return double(timegm(&parts)) + second;
}

}  // namespace observe
