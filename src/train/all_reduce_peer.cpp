#include "train/all_reduce_peer.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <fstream>
#include <numbers>
#include <sys/resource.h>
#include <unistd.h>

#include "net/coordinator.h"
#include "outer/outer_loop.h"
#include "outer/simulation.h"
#include "train/coordinator_options.h"
#include "train/timing.h"

namespace train {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::minutes;

constexpr const char* kRunName = "bench";
constexpr float kProgress = 0.1f;  // Of a peer, against parameters of size 1.

// The first unit is what the outer loop takes for the embedding, and treats otherwise.
shard::Layout bench_layout(int64_t elements) {
  shard::Layout layout;
  for (const int64_t count : {int64_t{512}, elements - 512}) {
    shard::Unit unit{.name = "numbers", .tensors = {}, .element_count = 0};
    shard::add_tensor(unit, "weight", {count}, {});
    layout.units.push_back(std::move(unit));
  }
  return layout;
}

// A round after every step; the outer parameters are then the mean of all.
outer::OuterConfig bench_config(const AllReduceBenchOptions& options) {
  outer::OuterConfig config;
  config.inner_steps = 1;
  config.learning_rate = 1;
  config.momentum = 0;
  config.codec = options.codec;
  return config;
}

// Standard normal numbers that any process can make from their places; from a table, as they must
// not take longer than the rounds.
class NormalNumbers {
 public:
  NormalNumbers() : table_(65536) {
    base::Random random(1);
    for (float& value : table_) {
      const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
      value = float(radius * std::cos(2 * std::numbers::pi * random.uniform()));
    }
  }
  // REQUIRES: first is a multiple of 8.
  void fill(uint64_t stream, int64_t first, std::span<float> values) const {
    for (size_t i = 0; i < values.size(); i += 8) {
      const auto words = base::philox(stream, uint64_t(first) + i);
      for (size_t k = i; k < std::min(i + 8, values.size()); ++k)
        values[k] = table_[words[(k - i) / 2] >> (k % 2 * 16) & 0xffff];
    }
  }

 private:
  std::vector<float> table_;
};

uint64_t progress_stream(int64_t peer) {
  return 1 + uint64_t(peer);
}

class BenchParameters final : public outer::LocalParameters {
 public:
  explicit BenchParameters(int64_t elements)
      : values_(size_t(elements)), layout_(bench_layout(elements)) {}

  void read(int64_t unit, int64_t first, std::span<float> elements) override {
    std::copy_n(at(unit, first), elements.size(), elements.begin());
  }
  void write(int64_t unit, int64_t first, std::span<const float> elements) override {
    std::ranges::copy(elements, at(unit, first));
  }
  const shard::Layout& layout() const { return layout_; }
  std::vector<float>& values() { return values_; }

 private:
  std::vector<float>::iterator at(int64_t unit, int64_t first) {
    return values_.begin() + layout_.unit_offset(unit) + first;
  }

  std::vector<float> values_;
  shard::Layout layout_;
};

// The exact mean of what all peers brought to the first round, against what the round made of it.
double relative_rms_error(const NormalNumbers& numbers, std::span<const float> result,
                          int64_t peers) {
  constexpr size_t kPiece = 4096;
  std::vector<float> values(kPiece);
  std::vector<double> mean(kPiece);
  double error_squares = 0, mean_squares = 0;
  for (size_t first = 0; first < result.size(); first += kPiece) {
    const size_t count = std::min(kPiece, result.size() - first);
    std::ranges::fill(mean, 0.0);
    for (int64_t peer = 0; peer < peers; ++peer) {
      numbers.fill(progress_stream(peer), int64_t(first), std::span(values).first(count));
      for (size_t i = 0; i < count; ++i)
        mean[i] += double(kProgress) * double(values[i]) / double(peers);
    }
    numbers.fill(0, int64_t(first), std::span(values).first(count));
    for (size_t i = 0; i < count; ++i) {
      const double error = double(result[first + i]) - double(values[i]) - mean[i];
      error_squares += error * error;
      mean_squares += mean[i] * mean[i];
    }
  }
  return std::sqrt(error_squares / mean_squares);
}

int64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

int64_t resident_bytes() {
  int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

net::CoordinatorOptions coordinator_options(const AllReduceBenchOptions& options) {
  net::CoordinatorOptions out{.run_name = kRunName};
  out.chunk_counts = {outer::chunk_count(bench_elements(options))};
  out.plan = plan_of(options.plan);
  out.round_bytes = {{bench_encoded_bytes(options), bench_encoded_bytes(options)}};
  out.start_members = out.members_min = options.peers;
  // A slow line is no fault here.
  out.start_grace = out.ready_grace = out.stall_after = minutes(30);
  out.round_timeout = minutes(60);
  out.dead_after = minutes(1);
  return out;
}

// One peer: its numbers, its outer state and its place in the swarm.
net::NodeKey bench_key(int64_t self) {
  net::KeyBytes seed{};
  seed[0] = uint8_t(self);
  return net::NodeKey(seed);
}

// A secret that everybody knows: the peers are this program's own.
std::shared_ptr<const net::Security> bench_security(const AllReduceBenchOptions& options,
                                                    int64_t self) {
  if (options.is_plain) return nullptr;
  return std::make_shared<const net::Security>(
      net::Security{.run_name = kRunName,
                    .key = bench_key(self),
                    .secret = net::RunSecret(net::KeyBytes{}),
                    .allowed = nullptr});
}

class BenchPeer {
 public:
  BenchPeer(const AllReduceBenchOptions& options, int64_t self, net::Endpoint coordinator,
            const std::string& host, BenchBoard& board)
      : options_(options),
        self_(self),
        board_(board),
        local_(bench_elements(options)),
        progress_(local_.values().size()),
        pool_(std::max(1, base::available_processors() / int(options.peers))),
        config_(bench_config(options)) {
    numbers_.fill(0, 0, local_.values());
    numbers_.fill(progress_stream(self), 0, progress_);
    for (float& value : progress_) value *= kProgress;
    state_ = outer::OuterState::create(config_, local_.layout(), local_, pool_);
    net::HostOptions host_options;
    host_options.listen = {host, 0};
    host_options.security = bench_security(options, self);
    swarm_ = net::Swarm::join(host_options,
                              {.run_name = kRunName,
                               .node_name = fmt::format("peer-{}", self),
                               .node_key = bench_key(self).id().number(),
                               .coordinator = std::move(coordinator)},
                              *state_, state_->states(), 0);
    loop_ =
        outer::OuterLoop::create({.config = config_, .join_timeout = minutes(2)}, *state_, *swarm_);
  }

  void run() {
    loop_->join(false, [] { return false; });
    record().bytes_before_rounds = resident_bytes();
    for (int64_t repetition = 0; repetition <= options_.repetitions; ++repetition) {
      for (size_t i = 0; i < progress_.size(); ++i) local_.values()[i] += progress_[i];
      pthread_barrier_wait(&board_.peers);
      if (repetition == 1) take_processor_time(-1);
      one_round(uint64_t(repetition) + 1);
      if (repetition == 0 && self_ == 0) {
        record().relative_rms_error =
            relative_rms_error(numbers_, state_->outer_parameters(0), options_.peers);
      }
    }
    record().peak_bytes = peak_bytes();
    pthread_barrier_wait(&board_.peers);
    take_processor_time(1);
    loop_->leave("done");
  }

 private:
  BenchBoard::Peer& record() { return board_.peer[size_t(self_)]; }

  void take_processor_time(int sign) {
    record().loop_seconds += sign * base::cpu_seconds_of(net::kLoopThreadName);
    record().worker_seconds += sign * base::cpu_seconds_of(net::kWorkerThreadName);
  }

  void one_round(uint64_t number) {
    const Clock::time_point start = Clock::now();
    const outer::StepOutcome outcome = loop_->after_step(number, 1, 0, [] { return false; });
    const double exposed = seconds_since(start);
    if (outcome.lost) throw base::resource_lost(*outcome.lost);
    const bool is_whole = outcome.rounds.size() == 1 && outcome.rounds[0].contributed &&
                          int64_t(outcome.rounds[0].members.size()) == options_.peers;
    if (!is_whole) throw base::resource_lost(fmt::format("round {} lacks a peer", number));
    const outer::RoundReport& round = outcome.rounds[0];
    BenchBoard::Round& out = record().rounds[number - 1];
    out.seconds = round.seconds;
    out.exposed_seconds = exposed;
    out.bytes_sent = round.bytes_sent;
    out.digest = round.digest.get();
    out.plan = round.plan;
    out.estimated_seconds = round.estimated_seconds;
  }

  const AllReduceBenchOptions& options_;
  const int64_t self_;
  BenchBoard& board_;
  const NormalNumbers numbers_;
  BenchParameters local_;
  std::vector<float> progress_;
  base::ThreadPool pool_;
  const outer::OuterConfig config_;
  std::unique_ptr<outer::OuterState> state_;
  std::unique_ptr<net::Swarm> swarm_;
  std::unique_ptr<outer::OuterLoop> loop_;
};

// A peer's payload, shared out among the others.
void run_plain_transfers(const AllReduceBenchOptions& options, int64_t self,
                         const std::vector<Listener>& listeners, BenchBoard& board) {
  PlainTransfer transfer(listeners, self);
  const int64_t to_each = 2 * bench_encoded_bytes(options) / options.peers;
  for (int64_t repetition = 0; repetition <= options.repetitions; ++repetition) {
    pthread_barrier_wait(&board.peers);
    const Clock::time_point start = Clock::now();
    transfer.exchange(to_each);
    board.peer[size_t(self)].rounds[size_t(repetition)].plain_seconds = seconds_since(start);
  }
}

}  // namespace

int64_t bench_elements(const AllReduceBenchOptions& options) {
  return int64_t(options.mib * 1024 * 1024 / 4) / 8 * 8;
}

int64_t bench_encoded_bytes(const AllReduceBenchOptions& options) {
  return outer::simulation_of(bench_config(options), bench_layout(bench_elements(options)))
      .contribution_bytes.front();
}

void run_bench_coordinator(const AllReduceBenchOptions& options, const std::string& host,
                           BenchBoard& board) {
  const auto coordinator = net::Coordinator::create(coordinator_options(options));
  net::HostOptions host_options;
  host_options.listen = {host, 0};
  host_options.security = bench_security(options, options.peers);
  const auto machine_host = net::Host::create(host_options, *coordinator);
  machine_host->start();
  board.coordinator_port = machine_host->listening_on().port;
  pthread_barrier_wait(&board.all);
  while (true) pause();
}

void run_bench_peer(const AllReduceBenchOptions& options, int64_t self,
                    const std::string& coordinator_host, const std::vector<Listener>& listeners,
                    BenchBoard& board) {
  pthread_barrier_wait(&board.all);
  {
    BenchPeer peer(options, self, {coordinator_host, board.coordinator_port},
                   listeners[size_t(self)].endpoint.host, board);
    peer.run();
  }
  run_plain_transfers(options, self, listeners, board);
}

}  // namespace train
