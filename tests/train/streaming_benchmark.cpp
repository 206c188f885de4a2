// What it costs the loss that rounds run beside training, and that their numbers are coarse: runs
// of a few nodes in one process, all on the same data and with the same initial values, one JSON
// line each. docs/learning.md has the results.
//   ATOLL_CORPUS  prefix of the token dataset
//   ATOLL_CASES   which cases: core (where not given), overlap, nodes, rounds; each uses one thread
//   ATOLL_SLICE   i/n: of these the cases i, i + n, ..., so that n processes can share the work
//   ATOLL_SEED    another order of the data (and other documents to be judged by)
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "support/catch.h"
#include "train/outer_rig.h"

namespace {

using outer::Merge;
using train_test::OuterNode;

constexpr int64_t kHeldOutRows = 192;

struct Case {
  const char* name;
  int64_t nodes = 3;
  int64_t rows = 12;  // Of a step, over all nodes.
  int64_t steps = 256;
  int64_t inner_steps = 16;  // 0: no rounds.
  int64_t fragments = 1;
  int64_t overlap = 0;  // Steps after which every node merges.
  const char* codec = "fp32";
  const char* result_codec = "same";
  const char* merge = "rebase";
};

const std::map<std::string, std::vector<Case>> kCases = {
    {"core",
     {
         {.name = "data parallel", .nodes = 1, .inner_steps = 0},
         {.name = "blocking"},
         {.name = "blocking", .codec = "int8"},
         {.name = "blocking", .codec = "int4"},
         {.name = "blocking", .codec = "lut2", .result_codec = "int4"},
         {.name = "streaming", .overlap = 1},
         {.name = "streaming", .overlap = 1, .codec = "int8"},
         {.name = "streaming", .overlap = 1, .codec = "int4"},
         {.name = "streaming", .overlap = 1, .codec = "lut2", .result_codec = "int4"},
         {.name = "streaming", .overlap = 1, .codec = "int4", .merge = "overwrite"},
         {.name = "streaming",
          .overlap = 1,
          .codec = "lut2",
          .result_codec = "int4",
          .merge = "overwrite"},
         {.name = "streaming", .overlap = 4, .codec = "int4"},
         {.name = "streaming", .overlap = 4, .codec = "int4", .merge = "overwrite"},
         {.name = "streaming", .overlap = 4, .codec = "int4", .merge = "lerp"},
         {.name = "streaming", .fragments = 6, .overlap = 1, .codec = "int4"},
     }},
    {"overlap",
     {
         {.name = "streaming", .overlap = 8, .codec = "int4"},
         {.name = "streaming", .overlap = 8, .codec = "int4", .merge = "overwrite"},
         {.name = "streaming", .overlap = 8, .codec = "int4", .merge = "lerp"},
         {.name = "streaming", .overlap = 12, .codec = "int4"},
         {.name = "streaming", .overlap = 12, .codec = "int4", .merge = "overwrite"},
         {.name = "streaming", .overlap = 12, .codec = "int4", .merge = "lerp"},
         {.name = "streaming", .overlap = 1, .codec = "int4", .merge = "lerp"},
     }},
    {"nodes",
     {
         {.name = "data parallel", .nodes = 1, .rows = 8, .inner_steps = 0},
         {.name = "streaming", .nodes = 1, .rows = 8, .overlap = 1, .codec = "int4"},
         {.name = "streaming", .nodes = 2, .rows = 8, .overlap = 1, .codec = "int4"},
         {.name = "streaming", .nodes = 4, .rows = 8, .overlap = 1, .codec = "int4"},
         {.name = "streaming", .nodes = 8, .rows = 8, .overlap = 1, .codec = "int4"},
     }},
    {"rounds",
     {
         {.name = "data parallel", .nodes = 1, .steps = 512, .inner_steps = 0},
         {.name = "blocking", .steps = 512, .inner_steps = 16},
         {.name = "streaming", .steps = 512, .inner_steps = 16, .overlap = 1, .codec = "int4"},
         {.name = "blocking", .steps = 512, .inner_steps = 64},
         {.name = "streaming", .steps = 512, .inner_steps = 64, .overlap = 4, .codec = "int4"},
         {.name = "blocking", .steps = 512, .inner_steps = 128},
         {.name = "streaming", .steps = 512, .inner_steps = 128, .overlap = 8, .codec = "int4"},
     }},
};

class StreamingRun {
 public:
  StreamingRun(const Case& what, const data::Sampler& sampler) : case_(what), sampler_(sampler) {
    train::RunConfig config = train_test::small_run(case_.steps);
    config.training.batch_rows = case_.rows / case_.nodes;
    config.training.micro_batch_rows = std::min<int64_t>(config.training.batch_rows, 4);
    if (case_.inner_steps != 0) config.outer.inner_steps = case_.inner_steps;
    config.outer.fragments = case_.fragments;
    config.outer.momentum = 0.5;
    config.outer.codec = case_.codec;
    config.outer.result_codec = case_.result_codec;
    for (int64_t part = 0; part < case_.nodes; ++part)
      nodes_.push_back(std::make_unique<OuterNode>(config, sampler, part));
  }

  // The validation loss at its end.
  double train() {
    for (int64_t step = 1; step <= case_.steps; ++step) {
      for (auto& node : nodes_) node->step(step);
      if (case_.inner_steps != 0) synchronise(step);
    }
    return nodes_[0]->rig.ranks.validate(sampler_, kHeldOutRows, [] { return false; })->loss;
  }

 private:
  // As outer::OuterLoop does where every commit comes in time.
  void synchronise(int64_t step) {
    const bool is_end = step == case_.steps;
    for (int64_t f = 0; f < case_.fragments; ++f) {
      const auto found = in_flight_.find(f);
      if (found == in_flight_.end()) continue;
      if (is_end || step - int64_t(found->second.step) >= case_.overlap) merge(f, step);
    }
    const auto due = outer::due_fragments(step, case_.inner_steps, case_.fragments, case_.steps);
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

std::string environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value ? value : otherwise;
}

std::vector<Case> chosen_cases() {
  const std::vector<Case>& of_group = kCases.at(environment("ATOLL_CASES", "core"));
  const std::string slice = environment("ATOLL_SLICE", "0/1");
  size_t first = 0, stride = 0;
  REQUIRE(std::sscanf(slice.c_str(), "%zu/%zu", &first, &stride) == 2);
  REQUIRE(stride > 0);
  std::vector<Case> chosen;
  for (size_t i = first; i < of_group.size(); i += stride) chosen.push_back(of_group[i]);
  return chosen;
}

}  // namespace

TEST_CASE("what streaming and few bits do to the loss", "[.benchmark][streaming]") {
  const std::string corpus = environment("ATOLL_CORPUS", ""),
                    seed = environment("ATOLL_SEED", "42");
  REQUIRE(!corpus.empty());
  const auto storage = base::make_disk_storage();
  const auto dataset = data::TokenDataset::open(*storage, corpus);
  const data::Sampler sampler({dataset.get()}, {.seed = std::strtoull(seed.c_str(), nullptr, 10),
                                                .sequence_length = train_test::kSmallSequence,
                                                .validation_fraction = 0.01,
                                                .weights = {},
                                                .vocabulary = train_test::kSmallVocabulary});
  for (const Case& what : chosen_cases()) {
    const double loss = StreamingRun(what, sampler).train();
    std::printf(
        "{\"run\":\"%s\",\"nodes\":%d,\"rows\":%d,\"steps\":%d,\"inner_steps\":%d,"
        "\"fragments\":%d,\"overlap\":%d,\"codec\":\"%s\",\"results\":\"%s\",\"merge\":\"%s\","
        "\"seed\":%s,\"loss\":%.4f}\n",
        what.name, int(what.nodes), int(what.rows), int(what.steps), int(what.inner_steps),
        int(what.fragments), int(what.overlap), what.codec, what.result_codec, what.merge,
        seed.c_str(), loss);
    std::fflush(stdout);
  }
}
