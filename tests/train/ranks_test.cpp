// A node with several ranks does what a node with one does: the same training to rounding whatever
// is shared out, the same bits every time, and the same state for checkpoints and the outer loop.
#include "support/catch.h"
#include "support/deferred_backend.h"
#include "support/temporary_folder.h"
#include "train/node_checkpoint.h"
#include "train/ranks_fixture.h"

namespace {

using ranks_test::kShardings;
using ranks_test::kSteps;
using ranks_test::make_batch;
using ranks_test::run_config;
using ranks_test::train_steps;
using train_test::NodeRig;
using train_test::relative_difference;

// Requires that a training with the weight gradients on a stream of their own, in whatever order
// streams run, has the bits of one without.
void require_same_bits_beside(train::RunConfig config) {
  using test::Eagerness;
  NodeRig expected(config);
  const auto steps = train_steps(expected, 0, 3);
  config.node.weight_gradient_stream = true;
  for (const Eagerness eagerness : {Eagerness::kCompute, Eagerness::kOthers, Eagerness::kRandom}) {
    INFO(config.node.ranks << " ranks, sharding " << config.node.sharding << ", recompute "
                           << config.training.recompute << ", memory " << config.node.memory
                           << ", eagerness " << int(eagerness));
    NodeRig rig(config, test::make_deferred_backends(int(config.node.ranks), eagerness));
    const auto found = train_steps(rig, 0, 3);
    for (size_t i = 0; i < steps.size(); ++i) {
      REQUIRE(found[i].loss == steps[i].loss);
      REQUIRE(found[i].gradient_norm == steps[i].gradient_norm);
    }
    REQUIRE(rig.parameters() == expected.parameters());
  }
}

}  // namespace

TEST_CASE("ranks: 1, 2, 3 and 4 train alike, whatever they share out", "[ranks]") {
  NodeRig alone(run_config(1));
  const std::vector<float> initial = alone.parameters();
  const auto expected = train_steps(alone, 0, kSteps);
  // The test could not fail if training changed little.
  REQUIRE(relative_difference(alone.parameters(), initial) > 1e-2);
  for (const std::string& sharding : kShardings) {
    for (const int64_t ranks : {2, 3, 4}) {
      // One micro-batch per rank, several, and one that is not full (5 rows of 12 at a time).
      for (const int64_t rows : {12, 1, 4, 5}) {
        INFO(ranks << " ranks, sharding " << sharding << ", micro-batches of " << rows);
        NodeRig rig(run_config(ranks, sharding, rows));
        REQUIRE(rig.parameters() == initial);
        const auto found = train_steps(rig, 0, kSteps);
        for (size_t i = 0; i < expected.size(); ++i) {
          REQUIRE(found[i].loss == Approx(expected[i].loss).epsilon(1e-5));
          REQUIRE(found[i].z_loss == Approx(expected[i].z_loss).epsilon(1e-4));
          REQUIRE(found[i].gradient_norm == Approx(expected[i].gradient_norm).epsilon(1e-4));
          REQUIRE(found[i].tokens == expected[i].tokens);
        }
        REQUIRE(relative_difference(rig.parameters(), alone.parameters()) < 1e-4);
      }
    }
  }
}

TEST_CASE("ranks: the same number gives the same bits", "[ranks]") {
  for (const std::string& sharding : kShardings) {
    for (const int64_t ranks : {2, 3}) {
      NodeRig one(run_config(ranks, sharding, 2)), other(run_config(ranks, sharding, 2));
      const auto steps = train_steps(one, 0, kSteps), again = train_steps(other, 0, kSteps);
      for (size_t i = 0; i < steps.size(); ++i) REQUIRE(steps[i].loss == again[i].loss);
      REQUIRE(one.parameters() == other.parameters());
    }
  }
}

TEST_CASE("ranks: replicated ranks keep the same bits on every rank", "[ranks]") {
  NodeRig rig(run_config(3, "replicated", 2));
  train_steps(rig, 0, kSteps);
  const shard::Layout& layout = rig.ranks.first().engine.layout;
  for (size_t u = 0; u < layout.units.size(); ++u) {
    std::vector<std::vector<float>> of_rank(3);
    for (int r = 0; r < 3; ++r) {
      of_rank[size_t(r)].resize(size_t(layout.units[u].element_count));
      rig.ranks.rank(r).engine.parameters.copy_masters_to_host(int64_t(u), 0, of_rank[size_t(r)]);
    }
    REQUIRE(of_rank[1] == of_rank[0]);
    REQUIRE(of_rank[2] == of_rank[0]);
  }
}

TEST_CASE("ranks: a step that is not finite is skipped by all of them", "[ranks]") {
  for (const std::string& sharding : kShardings) {
    auto config = run_config(3, sharding);
    NodeRig rig(config);
    train_steps(rig, 0, 1);
    const std::vector<float> before = rig.parameters();
    // The last rank's shard of the head: the others see it only through the sums.
    std::vector<float> broken(1, INFINITY), whole(1);
    const int64_t head = config.model.layers + 1;
    const int64_t last = rig.ranks.first().engine.layout.units[size_t(head)].element_count - 1;
    rig.masters.read(head, last, whole);
    rig.masters.write(head, last, broken);
    const auto step = rig.trainer.step(make_batch(config, 1));
    REQUIRE(step.skipped);
    rig.masters.write(head, last, whole);
    REQUIRE(rig.parameters() == before);
    REQUIRE_FALSE(rig.trainer.step(make_batch(config, 2)).skipped);
  }
}

TEST_CASE("ranks: with weights that are all NaN steps are skipped, counted, and end the run",
          "[ranks]") {
  for (const int64_t ranks : {1, 3}) {
    auto config = run_config(ranks);
    config.training.nonfinite_steps_max = 3;
    NodeRig rig(config);
    for (size_t u = 0; u < rig.layout().units.size(); ++u) {
      const std::vector<float> bad(size_t(rig.layout().units[u].element_count), NAN);
      rig.masters.write(int64_t(u), 0, bad);
    }
    rig.ranks.run([](train::Rank& rank) { rank.engine.parameters.masters_changed(); });
    REQUIRE(rig.trainer.step(make_batch(config, 0)).skipped);
    REQUIRE(rig.trainer.step(make_batch(config, 1)).skipped);
    REQUIRE_THROWS_AS(rig.trainer.step(make_batch(config, 2)), base::Error);
    REQUIRE(rig.ranks.first().optimizer.update_count() == 0);
  }
}

TEST_CASE("ranks: the planned memory is what is allocated", "[ranks]") {
  for (const std::string& sharding : kShardings) {
    for (const int64_t ranks : {1, 2, 3}) {
      auto config = run_config(ranks, sharding);
      config.node.weight_gradient_stream = ranks == 2;
      NodeRig rig(config);
      // What the plan leaves out: a norm per unit and the clipping scale.
      const int64_t norms = int64_t{sizeof(float)} * int64_t(rig.layout().units.size() + 1);
      for (int r = 0; r < ranks; ++r) {
        const backend::Device& device = *rig.ranks.rank(r).engine.backend.device;
        REQUIRE(device.allocated_bytes() == rig.ranks.plan().bytes_per_gpu() + norms);
      }
    }
  }
}

TEST_CASE("ranks: checkpoints load with another number of ranks", "[ranks]") {
  const test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  NodeRig first(run_config(2, "full"));
  train_steps(first, 0, 3);
  checkpoint::Manifest manifest{.step = 3,
                                .optimizer_updates = first.ranks.first().optimizer.update_count()};
  train::save_node(*storage, {.run_directory = folder.path()}, manifest,
                   {first.ranks, first.masters});
  const std::vector<float> saved = first.parameters();
  const auto expected = train_steps(first, 3, kSteps);

  const auto reader = checkpoint::open_newest(*storage, folder.path(), [](const std::string&) {});
  for (const std::string& sharding : kShardings) {
    for (const int64_t ranks : {1, 2, 3, 4}) {
      INFO(ranks << " ranks, sharding " << sharding);
      NodeRig rig(run_config(ranks, sharding));
      train::restore_node(*reader, {rig.ranks, rig.masters});
      REQUIRE(rig.parameters() == saved);
      const auto found = train_steps(rig, 3, kSteps);
      const bool is_same = ranks == 2 && sharding == "full";
      for (size_t i = 0; i < expected.size(); ++i) {
        if (is_same) REQUIRE(found[i].loss == expected[i].loss);
        REQUIRE(found[i].loss == Approx(expected[i].loss).epsilon(1e-5));
      }
      if (is_same) REQUIRE(rig.parameters() == first.parameters());
      REQUIRE(relative_difference(rig.parameters(), first.parameters()) < 1e-4);
    }
  }
}

// Bits do not depend on when a stream's work runs, as long as every wait is there.
TEST_CASE("ranks: streams that run in other orders change no bits", "[ranks]") {
  using test::Eagerness;
  for (const std::string& sharding : kShardings) {
    for (const int64_t ranks : {1, 2, 3}) {
      const auto config = run_config(ranks, sharding, 2);
      NodeRig expected(config);
      const auto steps = train_steps(expected, 0, 3);
      for (const Eagerness eagerness :
           {Eagerness::kCompute, Eagerness::kOthers, Eagerness::kRandom}) {
        INFO(ranks << " ranks, sharding " << sharding << ", eagerness " << int(eagerness));
        NodeRig rig(config, test::make_deferred_backends(int(ranks), eagerness));
        const auto found = train_steps(rig, 0, 3);
        for (size_t i = 0; i < steps.size(); ++i) {
          REQUIRE(found[i].loss == steps[i].loss);
          REQUIRE(found[i].gradient_norm == steps[i].gradient_norm);
        }
        REQUIRE(rig.parameters() == expected.parameters());
      }
    }
  }
}

TEST_CASE("ranks: weight gradients on a stream of their own change no bits", "[ranks]") {
  for (const std::string recompute : {"none", "cheap", "gate_up", "full"}) {
    for (const int64_t ranks : {1, 2}) {
      for (const std::string& sharding : kShardings) {
        if (ranks == 1 && sharding != "full") continue;  // All are the same.
        auto config = run_config(ranks, sharding, 2);
        config.training.recompute = recompute;
        require_same_bits_beside(config);
      }
    }
    auto lean = run_config(1);
    lean.training.recompute = recompute;
    lean.node.memory = "lean";
    require_same_bits_beside(lean);
  }
}
