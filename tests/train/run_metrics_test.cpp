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

TEST_CASE("metrics: a summary without an evaluation has no loss") {
  base::JsonWriter out;
  out.begin_object();
  train::write_fields(out, {});
  out.end_object();
  REQUIRE(out.text().find("\"validation_loss_before\":null,\"validation_loss_after\":null") !=
          std::string::npos);
}
