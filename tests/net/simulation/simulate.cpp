// Runs scenarios one after another and says what became of them, a line each, for tools/simulate,
// which runs several of these and shrinks what fails:
//
//   at SEED                  it begins; after the last such line of a process that died, it is
//   clear where failed SEED REASON       in one line probe HITS TEXT          at the end, each done
//   SEEDS EVENTS ROUNDS
//
//   simulate --first 17 --seeds 1 [--faults 0,4,7] [--nodes 2] [--end-ms 9000] [--show] [--log]
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

#include "net/probe.h"
#include "net/simulation/storm.h"
#include "net/simulation/trial.h"

namespace net {
namespace {

// So many seeds apart, a run is made twice.
constexpr uint64_t kUnseedEvery = 50;
// And so many, there is a storm as well, of a run that fails over.
constexpr uint64_t kStormEvery = 10;

struct Arguments {
  uint64_t first = 1;
  uint64_t seeds = 1;
  Reduction reduction;
  bool is_shown = false;
  bool only_storms = false;  // One for each seed, and nothing else.
};

Arguments parse(int count, char** words) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string name = words[i];
    if (name == "--show") {
      arguments.is_shown = true;
    } else if (name == "--storms") {
      arguments.only_storms = true;
    } else if (name == "--log") {
      setenv("ATOLL_LOG", "1", 1);
    } else if (i + 1 == count) {
      std::fprintf(stderr, "%s: not known, or without a value\n", name.c_str());
      std::exit(2);
    } else if (const char* const value = words[++i]; name == "--first") {
      arguments.first = std::strtoull(value, nullptr, 10);
    } else if (name == "--seeds") {
      arguments.seeds = std::strtoull(value, nullptr, 10);
    } else if (name == "--nodes") {
      arguments.reduction.nodes = std::strtoll(value, nullptr, 10);
    } else if (name == "--end-ms") {
      arguments.reduction.end = std::chrono::milliseconds(std::strtoll(value, nullptr, 10));
    } else if (name == "--faults") {
      auto& faults = arguments.reduction.faults.emplace();
      std::istringstream list(value);
      for (std::string number; std::getline(list, number, ',');) {
        if (!number.empty()) faults.insert(std::strtoull(number.c_str(), nullptr, 10));
      }
    } else {
      std::fprintf(stderr, "%s: not known\n", name.c_str());
      std::exit(2);
    }
  }
  return arguments;
}

void print_failure(uint64_t seed, std::string reason) {
  std::ranges::replace(reason, '\n', ';');
  std::printf("failed %" PRIu64 " %s\n", seed, reason.c_str());
}

int run(const Arguments& arguments) {
  uint64_t failures = 0, events = 0;
  int64_t rounds = 0;
  for (uint64_t seed = arguments.first; seed < arguments.first + arguments.seeds; ++seed) {
    const Scenario scenario = reduce(draw_scenario(seed), arguments.reduction);
    if (arguments.is_shown) {
      std::printf("%sfaults: %zu\n", scenario.text().c_str(), scenario.faults.size());
    }
    std::printf("at %" PRIu64 "\n", seed);
    std::fflush(stdout);
    Outcome outcome = arguments.only_storms ? Outcome{} : Trial(scenario).run();
    if (!arguments.only_storms && outcome.wrong.empty() && seed % kUnseedEvery == 0 &&
        Trial(scenario).run().unseed != outcome.unseed) {
      outcome.wrong = "a second run of it ended differently";
    }
    if (outcome.wrong.empty() && (arguments.only_storms || seed % kStormEvery == 0)) {
      Storm storm(seed);
      if (const std::string wrong = storm.run(); !wrong.empty()) outcome.wrong = "storm: " + wrong;
      rounds += storm.round_count();
    }
    if (!outcome.wrong.empty()) print_failure(seed, outcome.wrong);
    failures += !outcome.wrong.empty();
    events += outcome.events;
    rounds += outcome.rounds;
  }
  std::map<std::string, uint64_t> hits;
  for (const Probe* probe = Probe::first(); probe != nullptr; probe = probe->next()) {
    hits[probe->text()] += probe->hits();
  }
  for (const auto& [text, count] : hits) std::printf("probe %" PRIu64 " %s\n", count, text.c_str());
  std::printf("done %" PRIu64 " %" PRIu64 " %" PRId64 "\n", arguments.seeds, events, rounds);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace net

int main(int count, char** words) {
  return net::run(net::parse(count, words));
}
