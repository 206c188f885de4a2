#include "outer/simulation.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>

#include "outer/codec.h"
#include "outer/fragments.h"

namespace outer {
namespace {

// What a round waits for and no rate shortens: ready and open; the first parts, wanted and sent;
// the last results, wanted and sent; done and commit.
constexpr double kRoundTripsOfARound = 4;
// In multiples of H: until queues are as long as they will be, and then until fragments of all
// sizes had their turns with nodes at all distances.
constexpr int64_t kSettlingTurns = 4, kMeasuredTurns = 8;
constexpr double kDay = 86'400;

// By the direct plan every node sends its part of each chunk to the chunk's owner, and each owner
// sends what it summed to everybody; its own it has. So much leaves each node, and as much comes.
double bytes_per_node(const SimulationOptions& options, int64_t fragment) {
  const auto n = double(options.nodes.size());
  return (n - 1) / n *
         double(options.contribution_bytes[size_t(fragment)] +
                options.result_bytes[size_t(fragment)]);
}

double bytes_per_turn(const SimulationOptions& options) {
  double sum = 0;
  for (int64_t f = 0; f < int64_t(options.contribution_bytes.size()); ++f)
    sum += bytes_per_node(options, f);
  return sum;
}

// All nodes at the same boundary between two steps, each at its own time.
class Run {
 public:
  explicit Run(const SimulationOptions& options)
      : options_(options),
        time_(options.nodes.size()),
        waited_(options.nodes.size()),
        line_free_(options.nodes.size()) {}

  void step() {
    ++steps_;
    for (size_t n = 0; n < time_.size(); ++n) time_[n] += options_.nodes[n].step_seconds;
    for (const int64_t fragment : due_fragments(steps_, options_.inner_steps,
                                                int64_t(options_.contribution_bytes.size()), 0)) {
      open_round(fragment);
    }
    while (!rounds_.empty() && rounds_.front().due + options_.overlap_steps_max <= steps_) {
      wait_for(rounds_.front().over);
      rounds_.pop_front();
    }
  }

  const std::vector<double>& time() const { return time_; }
  const std::vector<double>& waited() const { return waited_; }
  int64_t rounds_opened() const { return rounds_opened_; }

 private:
  struct Round {
    int64_t due = 0;  // After this step.
    double over = 0;
  };

  void open_round(int64_t fragment) {
    const double open = *std::ranges::max_element(time_);
    double over = open;
    for (size_t n = 0; n < line_free_.size(); ++n) {
      line_free_[n] = std::max(line_free_[n], open) +
                      bytes_per_node(options_, fragment) / options_.nodes[n].bytes_per_second;
      over = std::max(over, line_free_[n]);
    }
    rounds_.push_back(
        {.due = steps_, .over = over + kRoundTripsOfARound * options_.round_trip_seconds});
    ++rounds_opened_;
  }

  void wait_for(double moment) {
    for (size_t n = 0; n < time_.size(); ++n) {
      const double wait = std::max(0.0, moment - time_[n]);
      waited_[n] += wait;
      time_[n] += wait;
    }
  }

  const SimulationOptions& options_;
  int64_t steps_ = 0;
  std::vector<double> time_, waited_, line_free_;  // By node, in seconds.
  std::deque<Round> rounds_;                       // Not applied yet; the oldest is first.
  int64_t rounds_opened_ = 0;
};

void check(const SimulationOptions& options) {
  if (options.nodes.empty()) throw base::bad_input("a simulation needs at least one node");
  for (const SimulatedNode& node : options.nodes) {
    if (!(node.step_seconds > 0) || !(node.bytes_per_second > 0) ||
        !std::isfinite(node.step_seconds)) {
      throw base::bad_input(fmt::format("a node with steps of {} s and a line of {} bytes/s",
                                        node.step_seconds, node.bytes_per_second),
                            "both must be above 0");
    }
  }
  const int64_t overlap = options.overlap_steps_max;
  if (overlap < 0 || (overlap > 0 && overlap >= options.inner_steps)) {
    throw base::bad_input(
        fmt::format("an overlap of {} steps with {} inner steps", overlap, options.inner_steps),
        "a fragment's round must be over before its next one is due");
  }
  CHECK(options.contribution_bytes.size() == options.result_bytes.size());
}

int64_t encoded_bytes(const Codec& codec, int64_t elements) {
  const int64_t chunk = chunk_elements(elements);
  const int64_t rest = elements % chunk;
  return elements / chunk * codec.encoded_bytes(chunk) + (rest > 0 ? codec.encoded_bytes(rest) : 0);
}

}  // namespace

SimulationOptions simulation_of(const OuterConfig& config, const shard::Layout& layout) {
  SimulationOptions options{.inner_steps = config.inner_steps};
  options.overlap_steps_max = config.overlap_steps_max;
  const auto codec = make_codec(config.codec), of_results = make_codec(result_codec(config));
  for (const Fragment& fragment : make_fragments(layout, config.fragments)) {
    options.contribution_bytes.push_back(encoded_bytes(*codec, fragment.element_count));
    options.result_bytes.push_back(encoded_bytes(*of_results, fragment.element_count));
  }
  return options;
}

SimulationResult simulate(const SimulationOptions& options) {
  check(options);
  Run run(options);
  const auto take_turns = [&](int64_t count) {
    for (int64_t step = 0; step < count * options.inner_steps; ++step) run.step();
  };
  take_turns(kSettlingTurns);
  const std::vector<double> begin = run.time(), waited_before = run.waited();
  const int64_t rounds_before = run.rounds_opened();
  take_turns(kMeasuredTurns);

  SimulationResult result;
  const auto count = double(options.nodes.size());
  double waited = 0, seconds = 0, slowest = 0;
  for (size_t n = 0; n < options.nodes.size(); ++n) {
    const double node_seconds = run.time()[n] - begin[n];
    const double node_waited = run.waited()[n] - waited_before[n];
    result.node_utilisation.push_back(1 - node_waited / node_seconds);
    waited += node_waited;
    seconds += node_seconds;
    slowest = std::max(slowest, options.nodes[n].step_seconds);
  }
  result.utilisation =
      std::reduce(result.node_utilisation.begin(), result.node_utilisation.end(), 0.0) / count;
  result.exposed_seconds_per_round = waited / count / double(run.rounds_opened() - rounds_before);
  const double days = seconds / count / kDay;
  result.steps_per_day = double(kMeasuredTurns * options.inner_steps) / days;
  result.bytes_per_day = double(kMeasuredTurns) * bytes_per_turn(options) / days;
  result.floor_bytes_per_second = bytes_per_turn(options) / (double(options.inner_steps) * slowest);
  return result;
}

}  // namespace outer
