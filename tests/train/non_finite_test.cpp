// States that are not finite, at the doors of the disk.
#include "outer/outer_state.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "train/node_checkpoint.h"
#include "train/node_rig.h"
#include "train/use_checkpoint.h"

namespace {

using train_test::NodeRig;

train::RunConfig run_config() {
  train::RunConfig config;
  config.model = {.vocabulary = 260,
                  .width = 8,
                  .layers = 1,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_size = 8,
                  .feed_forward = 8,
                  .sequence_length = 8};
  config.training = {.batch_rows = 1, .micro_batch_rows = 1};
  config.optimizer.schedule = {.kind = "constant", .warmup_steps = 0};
  config.node.device = "cpu";
  config.node.ranks = config.node.threads = 1;
  return config;
}

// A node with an outer state and a run directory.
struct Node {
  Node() : state(outer::OuterState::create(rig.config.outer, rig.layout(), rig.masters, pool)) {}

  void fill_head(float value) {
    const auto head = int64_t(rig.layout().units.size()) - 1;
    const std::vector<float> all(size_t(rig.layout().units.back().element_count), value);
    rig.masters.write(head, 0, all);
  }
  void save(const outer::OuterState* outer) {
    auto model = rig.config.model;
    checkpoint::Manifest manifest{
        .step = 3,
        .model_config =
            base::write_config([&](base::ConfigVisitor& v) { model::describe(v, model); }, -1),
        .tokenizer = data::bytes_record()};
    if (outer) manifest.outer = outer->states();
    train::save_node(*storage, {.run_directory = folder.path()}, manifest,
                     {rig.ranks, rig.masters, const_cast<outer::OuterState*>(outer)});
  }

  const test::TemporaryFolder folder;
  const std::unique_ptr<base::Storage> storage = base::make_disk_storage();
  NodeRig rig{run_config()};
  base::ThreadPool pool{1};
  std::unique_ptr<outer::OuterState> state;
};

std::string generate(Node& node) {
  std::string text;
  train::generate_text(*node.storage,
                       {.checkpoint = node.folder.path(),
                        .prompt = "a",
                        .tokens = 20,
                        .threads = 1,
                        .device = "cpu"},
                       [&](std::string_view piece) { text += piece; });
  return text;
}

}  // namespace

TEST_CASE("text is not chosen among logits that are not finite") {
  for (const float bad : {NAN, INFINITY}) {
    Node node;
    node.save(nullptr);
    generate(node);
    node.fill_head(bad);
    node.save(nullptr);
    REQUIRE_THROWS_AS(generate(node), base::Error);
  }
}

TEST_CASE("an outer state that is not finite is not saved") {
  Node node;
  node.save(node.state.get());
  const_cast<float&>(node.state->outer_parameters(0)[5]) = NAN;
  try {
    node.save(node.state.get());
    FAIL("saved");
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kResourceLost);
  }
}
