// What the last round of a run is worth when it comes before its H inner steps are over. A run of a
// few nodes is trained in one process; at many of its steps it is asked how it would have ended
// there, by each rule that a short round could follow, and then it goes on as if it had not been
// asked. ATOLL_CORPUS is the prefix of the token dataset; docs/rounds.md has the results.
#include <array>
#include <cstdio>
#include <cstdlib>

#include "support/catch.h"
#include "train/outer_rig.h"

namespace {

using train_test::OuterNode;

constexpr int64_t kNodes = 3, kSteps = 300, kInnerSteps = 20, kValidationRows = 48;

train::RunConfig run_config(int64_t fragments, double momentum) {
  train::RunConfig config = train_test::small_run(kSteps);
  config.outer = {.inner_steps = kInnerSteps, .fragments = fragments, .momentum = momentum};
  return config;
}

class ShortRounds {
 public:
  ShortRounds(int64_t fragments, double momentum, const data::Sampler& sampler)
      : config_(run_config(fragments, momentum)),
        sampler_(sampler),
        last_turn_(size_t(fragments), 0) {
    for (int64_t part = 0; part < kNodes; ++part)
      nodes_.push_back(std::make_unique<OuterNode>(config_, sampler, part));
  }

  void train() {
    for (int64_t step = 1; step <= kSteps; ++step) {
      for (auto& node : nodes_) {
        node->step(step);
      }
      if (is_probe(step)) probe(step);
      for (const int64_t f : outer::due_fragments(step, kInnerSteps, fragments(), 0))
        round(f, step);
    }
  }

 private:
  // How an outer step goes on from theta and m with the mean pseudo-gradient d of a share of H.
  struct Rule {
    const char* name;
    double (*step)(double d, double m, double rate, double mu, double share);
  };
  static constexpr std::array kRules = {
      Rule{"none", [](double, double, double, double, double) { return 0.0; }},
      Rule{"whole", [](double d, double m, double rate, double mu,
                       double) { return rate * (d + mu * (mu * m + d)); }},
      Rule{"weighted", [](double d, double m, double rate, double mu,
                          double share) { return share * rate * (d + mu * (mu * m + d)); }},
      Rule{"weighted momentum",
           [](double d, double m, double rate, double mu, double share) {
             return rate * (d + mu * (share * mu * m + d));
           }},
      Rule{"rate alone", [](double d, double, double rate, double, double) { return rate * d; }},
      Rule{"mean", [](double d, double, double, double, double) { return d; }},
  };

  int64_t fragments() const { return config_.outer.fragments; }

  static bool is_probe(int64_t step) {
    const int64_t round = step / kInnerSteps, rest = step % kInnerSteps;
    const bool is_round = round == 5 || round == 9 || round == 11 || round == 14;
    return is_round &&
           (rest == 1 || rest == 2 || rest == 5 || rest == 10 || rest == 15 || rest == 19);
  }

  void round(int64_t f, int64_t step) {
    const net::Committed commit = train_test::make_round(nodes_, f, step);
    for (auto& node : nodes_) {
      node->state->step(commit);
      node->state->merge(f, outer::Merge::kReplace);
      node->masters_changed();
    }
    last_turn_[size_t(f)] = step;
  }
  // One line: the validation loss of the run that ends here, by rule.
  void probe(int64_t step) {
    std::printf("{\"fragments\":%d,\"momentum\":%.2f,\"step\":%d,\"rest\":%d", int(fragments()),
                config_.outer.momentum, int(step), int(step % kInnerSteps));
    const std::vector<float> own = nodes_[0]->rig.parameters();
    for (const Rule& rule : kRules)
      std::printf(",\"%s\":%.4f", rule.name, loss_of(ended_with(rule, step)));
    loss_of(own);  // Puts them back.
    std::printf("}\n");
    std::fflush(stdout);
  }

  std::vector<float> ended_with(const Rule& asked, int64_t step) {
    const shard::Layout& layout = nodes_[0]->rig.layout();
    std::vector<std::vector<float>> all;
    for (auto& node : nodes_) all.push_back(node->rig.parameters());
    std::vector<float> ended(all[0].size());
    outer::OuterState& state = *nodes_[0]->state;
    for (int64_t f = 0; f < fragments(); ++f) {
      const double share = double(step - last_turn_[size_t(f)]) / double(kInnerSteps);
      const Rule& rule = share < 1 ? asked : kRules[1];  // Whole rounds are not in question.
      size_t in_fragment = 0;
      for (const int64_t unit : state.fragment(f).units) {
        auto at = size_t(layout.unit_offset(unit));
        for (int64_t i = 0; i < layout.units[size_t(unit)].element_count;
             ++i, ++at, ++in_fragment) {
          const double theta = state.outer_parameters(f)[in_fragment];
          double mean = 0;
          for (const auto& parameters : all) mean += double(parameters[at]) / double(kNodes);
          ended[at] =
              float(theta - rule.step(theta - mean, state.outer_momentum(f)[in_fragment],
                                      config_.outer.learning_rate, config_.outer.momentum, share));
        }
      }
    }
    return ended;
  }

  double loss_of(const std::vector<float>& parameters) {
    OuterNode& node = *nodes_[0];
    const float* next = parameters.data();
    for (size_t u = 0; u < node.rig.layout().units.size(); ++u) {
      const auto count = size_t(node.rig.layout().units[u].element_count);
      node.rig.masters.write(int64_t(u), 0, {next, count});
      next += count;
    }
    node.masters_changed();
    return node.rig.ranks.validate(sampler_, kValidationRows, [] { return false; })->loss;
  }

  const train::RunConfig config_;
  const data::Sampler& sampler_;
  std::vector<std::unique_ptr<OuterNode>> nodes_;
  std::vector<int64_t> last_turn_;
};

}  // namespace

TEST_CASE("what rounds over few steps do to the loss", "[.benchmark][short-rounds]") {
  const char* const corpus = std::getenv("ATOLL_CORPUS");
  REQUIRE(corpus != nullptr);
  const auto storage = base::make_disk_storage();
  const auto dataset = data::TokenDataset::open(*storage, corpus);
  const data::Sampler sampler({dataset.get()}, {.seed = 42,
                                                .sequence_length = 128,
                                                .validation_fraction = 0.01,
                                                .weights = {},
                                                .vocabulary = 272});
  for (const double momentum : {0.9, 0.5}) {
    for (const int64_t fragments : {1, 2, 4}) ShortRounds(fragments, momentum, sampler).train();
  }
}
