// The parent: makes the lab, the sockets and the shared memory, forks, waits, and adds up.
#include "train/bench_all_reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <sys/mman.h>

#include "train/all_reduce_peer.h"
#include "train/children.h"
#include "train/net_lab.h"
#include "train/timing.h"

namespace train {
namespace {

class SharedBoard {
 public:
  explicit SharedBoard(int64_t peers)
      : memory_(mmap(nullptr, sizeof(BenchBoard), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    board_ = new (memory_) BenchBoard;
    pthread_barrierattr_t shared;
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&board_->all, &shared, unsigned(peers + 1));
    pthread_barrier_init(&board_->peers, &shared, unsigned(peers));
  }
  // Processes that were killed may be inside the barriers, which are therefore not destroyed.
  ~SharedBoard() { munmap(memory_, sizeof(BenchBoard)); }
  SharedBoard(const SharedBoard&) = delete;
  SharedBoard& operator=(const SharedBoard&) = delete;
  BenchBoard& operator*() { return *board_; }

 private:
  void* memory_;
  BenchBoard* board_;
};

// Where the processes are: node 0 is the coordinator's, node i + 1 peer i's.
class Network {
 public:
  explicit Network(const AllReduceBenchOptions& options) {
    if (options.rate_mbit == 0 && options.round_trip_ms == 0 && options.loss == 0 &&
        options.regions == 1)
      return;
    auto lab = NetLab::create({.nodes = options.peers + 1,
                               .rate_mbit = options.rate_mbit,
                               .round_trip_ms = options.round_trip_ms,
                               .loss = options.loss,
                               .regions = options.regions,
                               .region_rate_mbit = options.region_rate_mbit,
                               .region_round_trip_ms = options.region_round_trip_ms});
    lab ? void(lab_ = std::move(*lab)) : void(problem_ = lab.reason());
  }
  std::string host(int64_t node) const { return lab_ ? lab_->address(node) : "127.0.0.1"; }
  Listener listener(int64_t node) const {
    if (!lab_) return make_listener(host(node));
    Listener made;
    lab_->inside(node, [&] { made = make_listener(host(node)); });
    return made;
  }
  void enter(int64_t node) {
    if (lab_) lab_->enter(node);
  }
  void start() {
    if (lab_) lab_->start();
  }
  int64_t packets_overflowed() const { return lab_ ? lab_->counts().overflowed : 0; }
  bool is_lab() const { return lab_ != nullptr; }
  const std::string& problem() const { return problem_; }

 private:
  std::unique_ptr<NetLab> lab_;
  std::string problem_;
};

// Over the timed repetitions the median of the peer that was last.
double last_peer(const BenchBoard& board, const AllReduceBenchOptions& options,
                 double BenchBoard::Round::*what) {
  std::vector<double> all;
  for (int64_t repetition = 1; repetition <= options.repetitions; ++repetition) {
    double last = 0;
    for (int64_t peer = 0; peer < options.peers; ++peer)
      last = std::max(last, board.peer[size_t(peer)].rounds[size_t(repetition)].*what);
    all.push_back(last);
  }
  return median(std::move(all));
}

void check_digests(const BenchBoard& board, const AllReduceBenchOptions& options) {
  for (int64_t repetition = 0; repetition <= options.repetitions; ++repetition) {
    for (int64_t peer = 1; peer < options.peers; ++peer) {
      if (board.peer[size_t(peer)].rounds[size_t(repetition)].digest !=
          board.peer[0].rounds[size_t(repetition)].digest)
        throw base::resource_lost(
            fmt::format("bench: round {}: peers 0 and {} differ", repetition + 1, peer));
    }
  }
}

AllReduceBenchReport make_report(const BenchBoard& board, const AllReduceBenchOptions& options,
                                 const Network& network) {
  check_digests(board, options);
  AllReduceBenchReport report{.elements = bench_elements(options)};
  const BenchBoard::Round& last = board.peer[0].rounds[size_t(options.repetitions)];
  report.plan = net::name_of(last.plan);
  report.estimated_seconds = last.estimated_seconds;
  report.seconds = last_peer(board, options, &BenchBoard::Round::seconds);
  report.exposed_seconds = last_peer(board, options, &BenchBoard::Round::exposed_seconds);
  report.plain_tcp_seconds = last_peer(board, options, &BenchBoard::Round::plain_seconds);
  const double n = double(options.peers);
  const double payload = 2 * (n - 1) / n * double(bench_encoded_bytes(options));
  report.ideal_seconds = network.is_lab() && options.rate_mbit > 0
                             ? payload / (options.rate_mbit * 1e6 / 8)
                             : std::numeric_limits<double>::quiet_NaN();
  report.efficiency = report.ideal_seconds / report.seconds;
  report.relative_rms_error = board.peer[0].relative_rms_error;
  for (int64_t p = 0; p < options.peers; ++p) {
    const BenchBoard::Peer& peer = board.peer[size_t(p)];
    report.peak_memory_bytes = std::max(report.peak_memory_bytes, peer.peak_bytes);
    report.round_memory_bytes =
        std::max(report.round_memory_bytes, peer.peak_bytes - peer.bytes_before_rounds);
    const double parameters = double(options.repetitions) * double(report.elements);
    report.loop_ns_per_parameter =
        std::max(report.loop_ns_per_parameter, 1e9 * peer.loop_seconds / parameters);
    report.worker_ns_per_parameter =
        std::max(report.worker_ns_per_parameter, 1e9 * peer.worker_seconds / parameters);
    for (int64_t repetition = 1; repetition <= options.repetitions; ++repetition)
      report.bytes_sent = std::max(report.bytes_sent, peer.rounds[size_t(repetition)].bytes_sent);
  }
  report.network = network.is_lab() ? "namespaces" : "loopback";
  report.network_problem = network.problem();
  report.packets_overflowed = network.packets_overflowed();
  return report;
}

void check(const AllReduceBenchOptions& options) {
  if (options.peers < 2 || options.peers > net::kMembersMax || options.repetitions < 1 ||
      options.repetitions > kRepetitionsMax || bench_elements(options) < 1024) {
    throw base::bad_input("bench allreduce: too few or too many peers, repetitions or numbers",
                          fmt::format("2 to {} peers, 1 to {} repetitions, at least 0.004 MiB",
                                      net::kMembersMax, kRepetitionsMax));
  }
  bench_encoded_bytes(options);  // Is there such a codec?
}

}  // namespace

AllReduceBenchReport bench_all_reduce(const AllReduceBenchOptions& options) {
  check(options);
  SharedBoard board(options.peers);
  Network network(options);
  std::vector<Listener> listeners;
  for (int64_t peer = 0; peer < options.peers; ++peer)
    listeners.push_back(network.listener(peer + 1));
  Children children;
  children.start("coordinator", [&] {
    network.enter(0);
    run_bench_coordinator(options, network.host(0), *board);
  });
  for (int64_t peer = 0; peer < options.peers; ++peer) {
    children.start(fmt::format("peer {}", peer), [&] {
      network.enter(peer + 1);
      run_bench_peer(options, peer, network.host(0), listeners, *board);
    });
  }
  network.start();
  children.wait(options.peers);
  return make_report(*board, options, network);
}

}  // namespace train
