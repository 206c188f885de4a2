// What the lines of metrics.jsonl claim.
#include "train/run_metrics.h"

#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

// The utilisation of steps that take these seconds, by a peak of 1 TFLOP/s.
std::vector<double> utilisations(const std::vector<double>& seconds, bool is_measured) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  train::RunConfig config;
  {
    observe::MetricsFile file(path, "node");
    train::RunMetrics metrics(file, config, 1e12, is_measured);
    const double flops = model::flops_per_token_palm(config.model);
    for (const double one : seconds)
      metrics.inner_step({.tokens = int64_t(1e12 / flops), .seconds = one});
  }
  std::vector<double> found;
  const std::string text = base::make_disk_storage()->read_text(path);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const auto line = base::JsonValue::parse(text.substr(begin, end - begin));
    found.push_back(*line->get("mfu")->as_number());
    begin = end + 1;
  }
  return found;
}

}  // namespace

TEST_CASE("metrics: a peak that a step beats was measured too low") {
  const auto measured = utilisations({2, 0.5, 1}, true);
  REQUIRE(measured[0] == Approx(0.5).epsilon(1e-3));
  REQUIRE(measured[1] == 1);
  REQUIRE(measured[2] == Approx(0.5).epsilon(1e-3));
  REQUIRE(utilisations({0.5}, false)[0] == Approx(2).epsilon(1e-3));  // A data sheet is a fact.
}

TEST_CASE("metrics: what the network tells is kept until it is written, and a flood is counted") {
  const test::TemporaryFolder folder;
  train::IncidentBox box;
  box.put({.kind = net::Incident::Kind::kLost, .who = "node-2", .reason = "it was \"reset\""});
  for (int i = 0; i < 1000; ++i) box.put({.who = "10.0.0.0/24", .reason = "noise", .count = 3});
  const auto content = box.take();
  REQUIRE(content.entries.size() == 256);
  REQUIRE(content.dropped_count == 745);
  REQUIRE(box.take().entries.empty());
  const std::string path = folder.file("metrics.jsonl");
  {
    observe::MetricsFile file(path, "node");
    train::write_incidents(file, content);
  }
  const std::string text = base::make_disk_storage()->read_text(path);
  const auto first = base::JsonValue::parse(text.substr(0, text.find('\n')));
  REQUIRE(*first->get("event")->as_string() == "incident");
  REQUIRE(*first->get("what")->as_string() == "lost");
  REQUIRE(*first->get("who")->as_string() == "node-2");
  REQUIRE(*first->get("reason")->as_string() == "it was \"reset\"");
  REQUIRE(*first->get("seconds_ago")->as_number() >= 0);
  REQUIRE(text.find("\"what\":\"dropped\",\"count\":745") != std::string::npos);
}

TEST_CASE("metrics: a summary without an evaluation has no loss") {
  base::JsonWriter out;
  out.begin_object();
  train::write_fields(out, {});
  out.end_object();
  REQUIRE(out.text().find("\"validation_loss_before\":null,\"validation_loss_after\":null") !=
          std::string::npos);
}
