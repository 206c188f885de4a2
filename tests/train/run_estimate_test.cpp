// What a run takes, against numbers worked out by hand.
#include "train/run_estimate.h"

#include "model/transformer.h"
#include "support/catch.h"

namespace {

train::RunConfig estimated_run() {
  train::RunConfig config;
  config.swarm.coordinator = "127.0.0.1:1";
  config.outer.codec = "fp32";
  config.outer.inner_steps = 10;
  config.training.steps = 1000;
  return config;
}

}  // namespace

TEST_CASE("RunEstimate: traffic, time and price of a blocking run, by hand") {
  const train::RunConfig config = estimated_run();
  const double bytes = 4.0 * double(model::parameter_count(config.model)) * 2 * 2 / 3;
  // A line on which the exchange takes just as long as the ten steps before it.
  const double rate_mbit = bytes * 8 / 1e6 / 10;
  const auto estimate = train::estimate_run(config, {.nodes = 3,
                                                     .rate_mbit = rate_mbit,
                                                     .step_seconds = 1,
                                                     .steps_left = 1000,
                                                     .price_per_gb = 0.5,
                                                     .price_per_gpu_hour = 2,
                                                     .gpus_per_node = 8});
  REQUIRE(estimate.utilisation == Approx(0.5).epsilon(1e-3));
  REQUIRE(estimate.longest_round_seconds == Approx(10).epsilon(1e-3));
  REQUIRE(estimate.hours == Approx(2000.0 / 3600).epsilon(1e-3));
  REQUIRE(estimate.gigabytes_per_day == Approx(bytes / 1e9 * 86400 / 20).epsilon(1e-3));
  REQUIRE(estimate.traffic_price_per_day == Approx(0.5 * estimate.gigabytes_per_day));
  REQUIRE(estimate.machine_price_per_day == Approx(2 * 8 * 24));
  REQUIRE(estimate.price ==
          Approx(3 * estimate.hours / 24 *
                 (estimate.traffic_price_per_day + estimate.machine_price_per_day)));
}

TEST_CASE("RunEstimate: a solo run sends nothing, and no price is told that nobody asked for") {
  train::RunConfig config = estimated_run();
  config.swarm.coordinator.clear();
  const auto estimate =
      train::estimate_run(config, {.nodes = 1, .step_seconds = 0.5, .steps_left = 7200});
  REQUIRE(estimate.hours == Approx(1));
  REQUIRE(estimate.utilisation == 1);
  REQUIRE(estimate.gigabytes_per_day == 0);
  REQUIRE(estimate.price < 0);
  REQUIRE(estimate.traffic_price_per_day < 0);
}

TEST_CASE("RunEstimate: what checkpoints take on a disk") {
  train::RunConfig config = estimated_run();
  const int64_t parameters = model::parameter_count(config.model);
  config.checkpoint.keep = 2;
  REQUIRE(train::estimate_disk(config).checkpoint_bytes == 20 * parameters);
  REQUIRE(train::estimate_disk(config).needed_bytes == 3 * 20 * parameters);
  config.optimizer.kind = "sgd";
  config.swarm.coordinator.clear();
  config.checkpoint.also_hugging_face = 5;
  REQUIRE(train::estimate_disk(config).checkpoint_bytes == 4 * parameters);
  REQUIRE(train::estimate_disk(config).hugging_face_bytes == 2 * parameters);
  config.checkpoint.hugging_face_dtype = "fp32";
  REQUIRE(train::estimate_disk(config).needed_bytes == 3 * 8 * parameters);
}
