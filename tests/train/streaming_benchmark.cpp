// What it costs the loss that rounds run beside training, and that their numbers are coarse: runs
// of a few nodes in one process, all on the same data and with the same initial values, one JSON
// line each. ATOLL_CORPUS is the prefix of the token dataset, ATOLL_SEED another order of the data;
// docs/learning.md has the results.
#include <cstdio>
#include <cstdlib>
#include <map>

#include "train/outer_rig.h"
#undef CHECK
#include "support/catch.h"

namespace {

using outer::Merge;
using train_test::OuterNode;

constexpr int64_t kSteps = 256, kValidationRows = 96;

struct Case {
  const char* name;
  int64_t nodes = 3;
  int64_t inner_steps = 16;
  int64_t fragments = 1;
  int64_t overlap = 0;  // Steps after which every node merges.
  const char* codec = "fp32";
  const char* result_codec = "same";
  const char* merge = "rebase";
};

const Case kCases[] = {
    {.name = "data parallel", .nodes = 1},
    {.name = "blocking"},
    {.name = "blocking", .codec = "int8"},
    {.name = "blocking", .codec = "int4"},
    {.name = "blocking", .codec = "lut2", .result_codec = "int4"},
    {.name = "streaming", .overlap = 1, .codec = "int4"},
    {.name = "streaming", .overlap = 4, .codec = "fp32"},
    {.name = "streaming", .overlap = 4, .codec = "int8"},
    {.name = "streaming", .overlap = 4, .codec = "int4"},
    {.name = "streaming", .overlap = 4, .codec = "lut2", .result_codec = "int4"},
    {.name = "streaming", .overlap = 4, .codec = "int4", .merge = "overwrite"},
    {.name = "streaming", .overlap = 4, .codec = "int4", .merge = "lerp"},
    {.name = "streaming", .overlap = 12, .codec = "int4"},
    {.name = "streaming", .overlap = 12, .codec = "int4", .merge = "overwrite"},
    {.name = "streaming", .overlap = 12, .codec = "int4", .merge = "lerp"},
    {.name = "streaming", .fragments = 6, .overlap = 4, .codec = "int4"},
};

class Run {
 public:
  Run(const Case& what, const data::Sampler& sampler) : case_(what), sampler_(sampler) {
    train::RunConfig config = train_test::small_run(kSteps);
    if (case_.nodes == 1) config.training.batch_rows *= 3;  // Equal tokens.
    config.outer.inner_steps = case_.inner_steps;
    config.outer.fragments = case_.fragments;
    config.outer.momentum = 0.5;
    config.outer.codec = case_.codec;
    config.outer.result_codec = case_.result_codec;
    for (int64_t part = 0; part < case_.nodes; ++part)
      nodes_.push_back(std::make_unique<OuterNode>(config, sampler, part));
  }

  // The validation loss at its end.
  double train() {
    for (int64_t step = 1; step <= kSteps; ++step) {
      for (auto& node : nodes_) node->step(step);
      if (case_.nodes > 1) synchronise(step);
    }
    return nodes_[0]->rig.ranks.validate(sampler_, kValidationRows, [] { return false; })->loss;
  }

 private:
  // As outer::OuterLoop does where every commit comes in time.
  void synchronise(int64_t step) {
    const bool is_end = step == kSteps;
    for (int64_t f = 0; f < case_.fragments; ++f) {
      const auto found = in_flight_.find(f);
      if (found == in_flight_.end()) continue;
      if (is_end || step - int64_t(found->second.step) >= case_.overlap) merge(f, step);
    }
    const auto due = outer::due_fragments(step, case_.inner_steps, case_.fragments, kSteps);
    for (const int64_t f : due) {
      in_flight_[f] = train_test::make_round(nodes_, f, step);
      if (is_end || case_.overlap == 0) merge(f, step);
    }
  }

  void merge(int64_t f, int64_t step) {
    const net::Committed commit = in_flight_.extract(f).mapped();
    const std::string rule = case_.merge;
    const Merge how = int64_t(commit.step) == step || rule == "overwrite" ? Merge::kOverwrite
                      : rule == "lerp"                                    ? Merge::kLerp
                                                                          : Merge::kRebase;
    for (auto& node : nodes_) {
      node->state->step(commit);
      node->state->merge(f, how);
      node->masters_changed();
    }
  }

  const Case case_;
  const data::Sampler& sampler_;
  std::vector<std::unique_ptr<OuterNode>> nodes_;
  std::map<int64_t, net::Committed> in_flight_;
};

}  // namespace

TEST_CASE("what streaming and few bits do to the loss", "[.benchmark][streaming]") {
  const char* const corpus = std::getenv("ATOLL_CORPUS");
  REQUIRE(corpus != nullptr);
  const char* const seed = std::getenv("ATOLL_SEED");
  const auto storage = base::make_disk_storage();
  const auto dataset = data::TokenDataset::open(*storage, corpus);
  const data::Sampler sampler({dataset.get()},
                              {.seed = seed ? std::strtoull(seed, nullptr, 10) : 42,
                               .sequence_length = train_test::kSmallSequence,
                               .validation_fraction = 0.01,
                               .weights = {},
                               .vocabulary = train_test::kSmallVocabulary});
  for (const Case& what : kCases) {
    const double loss = Run(what, sampler).train();
    std::printf(
        "{\"run\":\"%s\",\"nodes\":%d,\"fragments\":%d,\"overlap\":%d,\"codec\":\"%s\","
        "\"results\":\"%s\",\"merge\":\"%s\",\"seed\":%s,\"loss\":%.4f}\n",
        what.name, int(what.nodes), int(what.fragments), int(what.overlap), what.codec,
        what.result_codec, what.merge, seed ? seed : "42", loss);
    std::fflush(stdout);
  }
}
