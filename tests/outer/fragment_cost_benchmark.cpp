// What a fragment's round costs the threads of its node, per parameter: one JSON line for each
// operation, codec and number of threads, with the best of some rounds. ATOLL_PARAMETERS is the
// size of the fragment (25 million), ATOLL_ROUNDS how many rounds of each merge rule there are (3).
// `cpu_ns_per_parameter` is processor time of all threads, which others who compute beside it do
// not spoil. `bytes_per_parameter` is what the operation has to read from and write to memory, if
// nothing is in the caches when it begins.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>

#include "outer/codec.h"
#include "outer/fixture.h"
#include "support/catch.h"

namespace {

using namespace outer;
using namespace outer::testing;
using Clock = std::chrono::steady_clock;

constexpr int64_t kNodes = 4;  // Whose parts are summed.

int64_t number_of(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoll(text) : otherwise;
}

double cpu_seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

OuterConfig config_of(const char* codec, const char* mean) {
  OuterConfig config;
  config.codec = codec;
  config.mean = mean;
  return config;
}

class FragmentCost {
 public:
  FragmentCost(int64_t parameters, const char* codec, int threads, const char* mean)
      : parameters_(parameters),
        codec_(codec),
        threads_(threads),
        mean_(mean),
        node_(config_of(codec, mean), make_layout({512, parameters - 512}), nullptr, threads) {
    const int64_t chunk = chunk_elements(parameters);
    code_bytes_ = double(make_codec(codec)->encoded_bytes(chunk)) / double(chunk);
  }

  void round(const char* rule, Merge how) {
    drift();
    measure("freeze", 8 + code_bytes_, [&] { REQUIRE(node_.state->freeze(0)); });
    const double parts_bytes = (kNodes + 1) * code_bytes_;
    measure(fmt::format("reduce {} {}", kNodes, mean_), parts_bytes, [&] { reduce(); });
    measure(fmt::format("check {} and result", kNodes), parts_bytes, [&] { check(); });
    measure("step", 16 + code_bytes_, [&] { node_.state->step(commit_); });
    measure("digest", 8, [&] { (void)node_.state->state(0); });
    // Old and new parameters; with rebase the mean, its momentum and what was sent, else the outer
    // parameters.
    const double merge_bytes = how == Merge::kRebase ? 12 + 2 * code_bytes_ : 12;
    measure(fmt::format("merge {}", rule), how == Merge::kOverwrite ? 8 : merge_bytes,
            [&] { node_.state->merge(0, how); });
  }

  void print() const {
    for (const auto& [name, cost] : best_) {
      std::printf(
          "{\"benchmark\":\"fragment cost\",\"operation\":\"%s\",\"codec\":\"%s\","
          "\"parameters\":%lld,\"threads\":%d,\"ns_per_parameter\":%.3f,"
          "\"cpu_ns_per_parameter\":%.3f,\"bytes_per_parameter\":%.2f}\n",
          name.c_str(), codec_, static_cast<long long>(parameters_), threads_, cost.seconds,
          cost.cpu, cost.bytes);
    }
    std::fflush(stdout);
  }

 private:
  struct Cost {
    double seconds = 1e9, cpu = 1e9, bytes = 0;  // Per parameter; billionths.
  };

  void measure(const std::string& name, double bytes, const std::function<void()>& body) {
    const auto start = Clock::now();
    const double cpu_start = cpu_seconds();
    body();
    const double cpu = cpu_seconds() - cpu_start;
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    Cost& cost = best_[name];
    cost.seconds = std::min(cost.seconds, 1e9 * seconds / double(parameters_));
    cost.cpu = std::min(cost.cpu, 1e9 * cpu / double(parameters_));
    cost.bytes = bytes;
  }

  // As if inner steps had moved every parameter.
  void drift() {
    uint32_t random = uint32_t(++rounds_);
    for (std::vector<float>& unit : node_.local.units) {
      for (float& value : unit) {
        random = random * 1664525 + 1013904223;
        value += float(int32_t(random)) * 0x1p-44f;
      }
    }
  }

  // As several nodes would: parts that are not in the caches.
  void reduce() {
    OuterState& state = *node_.state;
    const int64_t chunks = state.chunk_count(0);
    commit_ = {.round = state.version(0) + 1,
               .step = rounds_ * uint64_t(OuterConfig().inner_steps),
               .contributed = true,
               .has_ours = std::vector<char>(size_t(chunks), 1),
               .weight_tokens = kNodes,
               .results = std::vector<net::FragmentStore::Part>(size_t(chunks))};
    node_.pool.parallel_items(chunks, [&](int64_t chunk, int) {
      commit_.results[size_t(chunk)] =
          make_part(0, kNodes, state.reduce(0, chunk, parts_of(chunk)).encoded);
    });
  }

  std::vector<net::FragmentStore::Part> parts_of(int64_t chunk) const {
    const int64_t whole_chunks = node_.state->chunk_count(0) - 1;
    std::vector<net::FragmentStore::Part> parts;
    for (int64_t peer = 0; peer < kNodes; ++peer) {
      const int64_t source =
          chunk == whole_chunks ? chunk : (chunk + peer * whole_chunks / kNodes) % whole_chunks;
      parts.push_back({.peer = net::PeerId(peer),
                       .weight_tokens = 1,
                       .bytes = node_.state->contribution(0, source),
                       .offset = net::kContributionOffset});
    }
    return parts;
  }

  void check() {
    const OuterState& state = *node_.state;
    node_.pool.parallel_items(state.chunk_count(0), [&](int64_t chunk, int) {
      bool is_right = state.check_result(0, chunk, commit_.results[size_t(chunk)].encoded()).ok();
      for (const net::FragmentStore::Part& part : parts_of(chunk))
        is_right = is_right && state.check_contribution(0, chunk, part.encoded()).ok();
      if (!is_right) std::abort();
    });
  }

  const int64_t parameters_;
  const char* const codec_;
  const int threads_;
  const char* const mean_;
  TestNode node_;
  double code_bytes_ = 0;
  uint64_t rounds_ = 0;
  net::Committed commit_;
  std::map<std::string, Cost> best_;
};

}  // namespace

TEST_CASE("cost of a fragment's round", "[.benchmark][fragment-cost]") {
  const int64_t parameters = number_of("ATOLL_PARAMETERS", 25'000'000);
  for (const char* codec : {"int8", "int4"}) {
    for (const auto& [threads, mean] : {std::pair{1, "clipped"}, {1, "trimmed"}, {2, "clipped"}}) {
      FragmentCost cost(parameters, codec, threads, mean);
      for (int64_t i = 0; i < number_of("ATOLL_ROUNDS", 3); ++i) {
        cost.round("rebase", Merge::kRebase);
        cost.round("overwrite", Merge::kOverwrite);
        cost.round("lerp", Merge::kLerp);
      }
      cost.print();
    }
  }
}
