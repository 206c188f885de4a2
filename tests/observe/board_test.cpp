// What the lines of a metrics.jsonl come to.
#include "observe/board.h"

#include <cmath>
#include <fmt/format.h>

#include "base/json.h"
#include "observe/board_text.h"
#include "support/catch.h"

namespace {

using observe::Board;

// Seconds after noon.
std::string board_line(const std::string& event, double second, const std::string& fields) {
  return fmt::format(R"({{"event":"{}","time":"2026-01-31T12:{:02}:{:06.3f}Z","node":"left"{}{}}})",
                     event, int(second) / 60, std::fmod(second, 60), fields.empty() ? "" : ",",
                     fields);
}

std::string step_line(int64_t step, double second, double loss, double seconds = 1) {
  return board_line("inner_step", second,
                    fmt::format(R"("step":{},"loss":{},"grad_norm":0.5,"lr":0.001,"tokens":100,)"
                                R"("tokens_per_second":{},"mfu":0.25,"seconds":{},"samples":{},)"
                                R"("passes":0.5)",
                                step, loss, 100 / seconds, seconds, 8 * step));
}

std::string round_line(int64_t round, double second, double exposed) {
  return board_line(
      "round", second,
      fmt::format(R"("round":{},"fragment":1,"step":{},"members":[0,3],"bytes_sent":1000,)"
                  R"("bytes_received":2000,"seconds":3,"exposed_seconds":{},"encode_seconds":0.25,)"
                  R"("wait_seconds":0.5,"apply_seconds":0.25,"contributed":true,"codec":"int8",)"
                  R"("plan":"direct","contributions":[{{"member":3,"norm":2,"cosine":0.5,)"
                  R"("share":0.75}}])",
                  round, 5 * round, exposed));
}

}  // namespace

TEST_CASE("board: steps, rounds and the share of the time between them") {
  Board board;
  board.add(board_line("start", 0,
                       R"("run":"r","version":"1.2.3","device":"CPU","parameters":7,"step":0,)"
                       R"("steps":100,"price_per_gb":2)"));
  REQUIRE(board.state == Board::State::kStarting);
  REQUIRE(std::isnan(board.utilisation()));
  for (int step = 1; step <= 4; ++step) board.add(step_line(step, 10 + step, 5 - step));
  board.add(round_line(1, 15, 1));
  board.add(step_line(5, 16, 1.5));  // Begins at 15.
  REQUIRE(board.state == Board::State::kTraining);
  REQUIRE(board.run == "r");
  REQUIRE(board.node == "left");
  REQUIRE(board.step == 5);
  REQUIRE(board.loss == 1.5);
  REQUIRE(board.tokens == 500);
  REQUIRE(board.samples == 40);
  REQUIRE(board.round_count == 1);
  REQUIRE(board.rounds.back().member_count == 2);
  REQUIRE(board.sent_bytes == 1000);
  REQUIRE(board.price() == Approx(2e-6));
  REQUIRE(board.exposed_seconds == 1);
  REQUIRE(board.contributions.at(0).share == 0.75);
  REQUIRE(board.utilisation() == Approx(1 - 1.0 / 6));  // Six seconds from 10 on.
  REQUIRE(board.utilisation_curve.points().size() == 1);
  REQUIRE(board.utilisation_curve.points()[0].mean() == Approx(1 - 1.0 / 5));  // Five until then.
  REQUIRE(board.seconds_left() == Approx(95 * 6.0 / 5));
  board.add(board_line("summary", 17, R"("step":5,"utilisation":0.75,"finished":false)"));
  REQUIRE(board.state == Board::State::kStopped);
  REQUIRE(board.utilisation() == 0.75);
  REQUIRE(std::isnan(board.seconds_left()));
}

TEST_CASE("board: a process that is started again, from an older step") {
  Board board;
  for (int step = 1; step <= 10; ++step) board.add(step_line(step, step, 10));
  board.add(round_line(1, 10, 4));
  board.add(board_line("start", 100, R"("run":"r","steps":20,"step":6)"));
  board.add(step_line(7, 101, 3));
  REQUIRE(board.starts == 1);
  REQUIRE(board.tokens == 1100);  // Trained again, counted again.
  REQUIRE(board.round_count == 1);
  REQUIRE(board.utilisation() == 1);  // Of this process.
  const auto& points = board.loss_curve.points();
  REQUIRE(points.size() == 7);
  REQUIRE(points[5].x == 6);
  REQUIRE(points[6].x == 7);
  REQUIRE(points[6].mean() == 3);
  // Old files have no `start`: a summary ends a process, too.
  board.add(board_line("summary", 102, R"("step":7,"utilisation":0.5,"finished":false)"));
  board.add(step_line(8, 200, 3));
  REQUIRE(board.state == Board::State::kTraining);
  REQUIRE(board.utilisation() == 1);
}

TEST_CASE("board: incidents, standing and members, each with its cause") {
  Board board;
  board.add(board_line("membership", 1, R"("epoch":4,"members":[0,2,5])"));
  board.add(board_line("standing", 2, R"("contributes":false,"reason":"too late")"));
  board.add(board_line("incident", 3, R"("what":"lost","who":"right","reason":"reset","count":1)"));
  board.add(board_line("incident", 3, R"("what":"refused","who":"10.0.0.0/24","count":7)"));
  board.add(board_line("checkpoint", 4, R"("step":3,"bytes":2000000,"seconds":0.5)"));
  board.add(board_line("checkpoint_failed", 5, R"("step":6,"reason":"full","next_attempt":8)"));
  board.add(board_line("evaluation", 6, R"("step":6,"validation_loss":2.5,"tokens":9)"));
  REQUIRE(board.members == std::vector<int64_t>{0, 2, 5});
  REQUIRE(board.epoch == 4);
  REQUIRE_FALSE(board.contributes);
  REQUIRE(board.standing_reason == "too late");
  REQUIRE(board.incidents.at("lost") == 1);
  REQUIRE(board.incidents.at("refused") == 1);
  REQUIRE(board.checkpoints == 1);
  REQUIRE(board.failed_checkpoints == 1);
  REQUIRE(board.validation_loss == 2.5);
  REQUIRE(board.events.size() == 6);
  REQUIRE(board.events[2].kind == "incident: lost");
  REQUIRE(board.events[2].text == "right");
  REQUIRE(board.events[2].cause == "reset");
  REQUIRE(board.events[2].time == board.events[3].time);
  REQUIRE(board.events[3].text == "10.0.0.0/24 (7 so far)");
}

TEST_CASE("board: what is no line of metrics changes nothing, and is counted") {
  Board board;
  board.add(step_line(1, 1, 5));
  const std::string before = observe::status_json(board, 0);
  for (const char* bad : {"{\"event\":\"inner_st", "[]", "7", "null", "\xff\xfe", "{} {}"})
    board.add(bad);
  REQUIRE(board.unreadable_lines == 6);
  board.unreadable_lines = 0;
  for (const char* other :
       {"", "{}", R"({"event":"of a newer program","step":9})", R"({"event":7})"})
    board.add(other);
  REQUIRE(observe::status_json(board, 0) == before);
  // Values of other types are as if missing.
  board.add(R"({"event":"inner_step","time":7,"step":"x","loss":null,"seconds":[],"tokens":{}})");
  board.add(R"({"event":"round","members":7,"contributions":[1,{"member":"x"}],"seconds":-1e308})");
  board.add(R"({"event":"membership","members":["x",{}]})");
  board.add(R"({"event":"incident","what":7,"who":null})");
  REQUIRE(std::isnan(board.loss));
  REQUIRE(board.round_seconds == 0);
  REQUIRE(base::JsonValue::parse(observe::status_json(board, 0)).ok());
}

TEST_CASE("board: memory is bounded, whatever comes") {
  Board board;
  for (int i = 1; i <= 5000; ++i) {
    board.add(step_line(i, 1, 1 + i % 2));
    board.add(round_line(i, 1, 0.5));
    board.add(board_line("incident", 1,
                         fmt::format(R"("what":"kind {}","who":"{}")", i, std::string(5000, 'x'))));
  }
  REQUIRE(board.loss_curve.points().size() <= observe::Curve::kPointsMax);
  REQUIRE(board.loss_curve.points().back().x == 5000);
  REQUIRE(board.loss_curve.points().front().mean() == Approx(1.5));
  REQUIRE(board.rounds.size() == Board::kRoundsMax);
  REQUIRE(board.events.size() == Board::kEventsMax);
  REQUIRE(board.incidents.size() == Board::kListMax);
  REQUIRE(observe::status_json(board, 0).size() < 300'000);
}

TEST_CASE("board: a curve keeps the mean of all samples, and forgets steps that are made again") {
  observe::Curve curve;
  for (int i = 0; i < 1000; ++i) curve.add(i, i);
  double sum = 0;
  int64_t count = 0;
  for (const auto& point : curve.points()) {
    sum += point.sum;
    count += point.count;
  }
  REQUIRE(count == 1000);
  REQUIRE(sum == 999 * 1000 / 2);
  curve.add(1000, std::nan(""));
  curve.drop_from(500);
  REQUIRE(curve.points().back().x < 500);
  REQUIRE(curve.points().back().x >= 495);  // At most one point's samples go with them.
  curve.drop_from(0);
  REQUIRE(curve.points().empty());
}

TEST_CASE("board: quantiles are of the newest samples") {
  observe::Quantiles quantiles;
  REQUIRE(std::isnan(quantiles.at(0.5)));
  quantiles.add(3);
  REQUIRE(quantiles.at(0.5) == 3);
  REQUIRE(quantiles.at(0.99) == 3);
  for (int i = 0; i < 5000; ++i) quantiles.add(1000);
  for (int i = 1; i <= int(observe::Quantiles::kSamplesMax); ++i) quantiles.add(i);
  REQUIRE(quantiles.at(0.5) == 512);
  REQUIRE(quantiles.at(0.99) == 1014);
  REQUIRE(quantiles.at(0) == 1);
  REQUIRE(quantiles.at(1) == 1024);
}

TEST_CASE("board: times") {
  REQUIRE(observe::parse_utc("1970-01-02T00:00:01.250Z") == 86401.25);
  REQUIRE(observe::parse_utc("2026-01-31T12:00:00.000Z") == 1769860800);
  for (const char* bad : {"", "x", "2026-01-31", "2026-01-31T12:00:00.000", "2026-01-31T12:00:-1Z"})
    REQUIRE(observe::parse_utc(bad) == 0);
}
