// NCCL between emulated GPUs: collectives, everything that can go wrong in them, and which GPU a
// rank gets. Deadlines are short where they are expected to pass.
#include <atomic>
#include <condition_variable>
#include <fmt/format.h>
#include <mutex>

#include "cuda/device.h"
#include "cuda/node.h"
#include "emulation/fake_device.h"
#include "emulation/fake_nccl.h"
#include "support/catch.h"

using namespace cuda_test;
using backend::Backend;
using backend::Stream;
using emulation::fake_device;
using emulation::Fault;
using emulation::set_fault;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kShort{600};  // Longer than a busy machine keeps a thread waiting.
// Generous: all deadlines of a failure together, on a machine with other work.
constexpr milliseconds kAtOnce{10'000};

struct FakeGpus {
  explicit FakeGpus(int count) { fake_device().count = count; }
  ~FakeGpus() {
    set_fault(Fault::kNone);
    fake_device() = {};
  }
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& error) {
    return fmt::format("{} {}", int(error.code()), error.what());
  }
  return "";
}

const char* const kOperations[] = {"all_gather", "reduce_scatter", "all_reduce", "broadcast"};

void call(Backend& rank, const std::string& operation, const DeviceArray& narrow,
          const DeviceArray& wide) {
  backend::Communicator& communicator = *rank.communicator;
  Stream& stream = rank.device->communication_stream();
  if (operation == "all_gather") communicator.all_gather(wide.tensor(), narrow.tensor(), stream);
  if (operation == "reduce_scatter")
    communicator.reduce_scatter(narrow.tensor(), wide.tensor(), stream);
  if (operation == "all_reduce") communicator.all_reduce(narrow.tensor(), stream);
  if (operation == "broadcast") communicator.broadcast(narrow.tensor(), 0, stream);
}

// A step with two collectives, of which the second one is `operation`.
void step(Backend& rank, const std::string& operation) {
  const DeviceArray narrow(rank, {1, 2}),
      wide(rank, std::vector<float>(size_t(2 * rank.communicator->rank_count())));
  call(rank, "all_reduce", narrow, wide);
  call(rank, operation, narrow, wide);
  rank.device->synchronize(rank.device->communication_stream());
  rank.communicator->barrier();
}

// Time for deadlines to pass that must not matter.
void let_pass(milliseconds time) {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, time, [] { return false; });
}

emulation::Hold hold(Backend& rank) {
  return emulation::hold(cuda::handle_of(rank.device->communication_stream()));
}

}  // namespace

TEST_CASE("nccl: collectives with 1 to 4 GPUs", "[nccl]") {
  const FakeGpus gpus(4);
  for (const int ranks : {1, 2, 3, 4}) require_right_collectives("nccl", ranks);
  REQUIRE(emulation::live_communicators() == 0);
}

TEST_CASE("nccl: products leave multiprocessors to collectives that run beside them", "[nccl]") {
  const FakeGpus gpus(2);
  const auto told = [](backend::CudaOptions options) {
    options.attention = "plain";
    backend::make_cuda_backends(options);
    return fake_device().product_multiprocessors;
  };
  REQUIRE(told({.ranks = 2}) == 0);
  REQUIRE(told({.ranks = 2, .communication_multiprocessors = 3}) == 1);
  REQUIRE(told({.ranks = 2, .communication_multiprocessors = 64}) == 1);
  REQUIRE(told({.ranks = 1, .communication_multiprocessors = 3}) == 0);
}

TEST_CASE("nccl: every failure at every collective reaches every rank", "[nccl]") {
  const FakeGpus gpus(3);
  struct Case {
    Fault fault;
    const char* text;
    bool waits_for_deadline;
  };
  for (const Case& c :
       {Case{Fault::kQueueingFails, "rank 1", false},
        Case{Fault::kQueueingNeverEnds, "rank 1", true}, Case{Fault::kErrorLater, "rank 1", false},
        Case{Fault::kErrorAtEnd, "rank 1", false},
        Case{Fault::kNeverEnds, "GPU of rank 0, rank 1, rank 2", true}}) {
    for (const char* operation : kOperations) {
      INFO(operation << " fault " << int(c.fault));
      set_fault(Fault::kNone);
      Node node({.ranks = 3, .timeout = c.waits_for_deadline ? kShort : milliseconds{60'000}});
      set_fault(c.fault, 1, 1);
      const auto begin = steady_clock::now();
      const auto errors = node.run([&](Backend& rank) { step(rank, operation); });
      REQUIRE(steady_clock::now() - begin < kAtOnce);
      for (const std::string& error : errors) {
        INFO(error);
        REQUIRE(contains(error, operation));
        REQUIRE(contains(error, c.text));
        REQUIRE(!contains(error, "not resource_lost"));
      }
      // And from then on.
      for (const std::string& error : node.run([](Backend& rank) { rank.communicator->barrier(); }))
        REQUIRE(error == errors[0]);
      REQUIRE(emulation::live_communicators() == 0);
    }
  }
}

TEST_CASE("nccl: a rank that does not come is named", "[nccl]") {
  const FakeGpus gpus(3);
  for (const char* operation : kOperations) {
    Node node({.ranks = 3, .timeout = kShort});
    const auto errors = node.run([&](Backend& rank) {
      if (rank.communicator->rank() != 1) step(rank, operation);
    });
    REQUIRE(errors[1].empty());
    for (const size_t rank : {size_t{0}, size_t{2}})
      REQUIRE(contains(errors[rank], "rank 1 did not arrive"));
    REQUIRE(emulation::live_communicators() == 0);
  }
}

TEST_CASE("nccl: a GPU that does not come is named", "[nccl]") {
  const FakeGpus gpus(2);
  Node node({.ranks = 2, .timeout = kShort});
  const emulation::Hold computing = hold(node.rank(1));
  const auto errors = node.run([](Backend& rank) {
    const DeviceArray data(rank, {1, 2});
    rank.communicator->all_reduce(data.tensor(), rank.device->communication_stream());
  });
  REQUIRE(errors == std::vector<std::string>(2));
  std::string error;
  const auto begin = steady_clock::now();
  while (error.empty() && steady_clock::now() - begin < kAtOnce) {
    let_pass(milliseconds{1});
    error = node.run([](Backend& rank) { rank.communicator->barrier(); })[0];
  }
  INFO(error);
  REQUIRE(contains(error, "all_reduce 0: the GPU of rank 1 did not come"));
  emulation::release(computing);
}

TEST_CASE("nccl: long computations before collectives do not count", "[nccl]") {
  constexpr milliseconds kTimeout{2'000};  // Nobody may miss it, of many meetings.
  const FakeGpus gpus(2);
  Node node({.ranks = 2, .timeout = kTimeout});
  std::vector<emulation::Hold> computing{hold(node.rank(0)), hold(node.rank(1))};
  constexpr int kCollectives = 60;
  const auto errors = node.run(
      [&](Backend& rank) {
        const DeviceArray data(rank, {1, 2});
        Stream& stream = rank.device->communication_stream();
        for (int i = 0; i < kCollectives; ++i) rank.communicator->all_reduce(data.tensor(), stream);
        rank.device->synchronize(stream);
        rank.communicator->barrier();
      },
      [&] {
        let_pass(2 * kTimeout);
        for (const emulation::Hold& one : computing) emulation::release(one);
      });
  REQUIRE(errors == std::vector<std::string>(2));
}

TEST_CASE("nccl: a host that is far ahead waits for its GPU", "[nccl]") {
  const FakeGpus gpus(2);
  Node node({.ranks = 2});
  std::vector<emulation::Hold> computing{hold(node.rank(0)), hold(node.rank(1))};
  std::atomic<int> done = 0;
  bool is_bounded = false;
  const auto errors = node.run(
      [&](Backend& rank) {
        const DeviceArray data(rank, {1, 2});
        Stream& stream = rank.device->communication_stream();
        for (int i = 0; i < 200; ++i) {
          rank.communicator->all_reduce(data.tensor(), stream);
          if (rank.communicator->rank() == 0) ++done;
        }
      },
      [&] {
        let_pass(kShort);
        is_bounded = done <= 64;
        for (const emulation::Hold& one : computing) emulation::release(one);
      });
  REQUIRE(errors == std::vector<std::string>(2));
  REQUIRE(is_bounded);
  REQUIRE(done == 200);
}

TEST_CASE("nccl: abort frees ranks that wait for others and for their GPUs", "[nccl]") {
  const FakeGpus gpus(3);
  for (const bool waits_for_gpu : {false, true}) {
    set_fault(Fault::kNone);
    Node node({.ranks = 3});
    if (waits_for_gpu) set_fault(Fault::kNeverEnds, 0, 1);
    const auto begin = steady_clock::now();
    const auto errors = node.run(
        [&](Backend& rank) {
          if (!waits_for_gpu && rank.communicator->rank() == 2) return;
          step(rank, "all_gather");
        },
        [&] {
          let_pass(milliseconds{20});  // Most are waiting by then; it must not matter.
          node.communicator(2).abort("the disk is full");
          node.communicator(0).abort("another reason");
        });
    REQUIRE(steady_clock::now() - begin < kAtOnce);
    REQUIRE(contains(errors[0], "the disk is full"));
    REQUIRE(contains(errors[1], "the disk is full"));
    REQUIRE(emulation::live_communicators() == 0);
  }
}

TEST_CASE("nccl: a start that fails, or does not end", "[nccl]") {
  const FakeGpus gpus(3);
  const auto begin = steady_clock::now();
  set_fault(Fault::kMissing);
  const std::string missing = error_of([] { Node({.ranks = 3, .timeout = kShort}); });
  REQUIRE(
      contains(missing, "2 NCCL, which several GPUs need, cannot be had: there is no fake NCCL"));
  set_fault(Fault::kStartFails, 1);
  const std::string failing = error_of([] { Node({.ranks = 3, .timeout = kShort}); });
  REQUIRE(contains(failing, "3 rank 1, starting NCCL: NCCL says a fake error"));
  REQUIRE(emulation::live_communicators() == 0);
  set_fault(Fault::kStartNeverEnds, 1);
  const std::string endless = error_of([] { Node({.ranks = 3, .timeout = kShort}); });
  REQUIRE(contains(endless, "3 rank 1, starting NCCL: NCCL is not ready within 600 ms"));
  REQUIRE(emulation::live_communicators() == 0);
  REQUIRE(steady_clock::now() - begin < kAtOnce);
}

TEST_CASE("nccl: the end never hangs", "[nccl]") {
  const FakeGpus gpus(2);
  { const Node node({.ranks = 2}); }
  REQUIRE(emulation::live_communicators() == 0);
  const auto begin = steady_clock::now();
  {
    const Node node({.ranks = 2, .timeout = kShort});
    set_fault(Fault::kFinalizeNeverEnds, 1);
  }
  REQUIRE(emulation::live_communicators() == 0);
  set_fault(Fault::kNone);
  {
    Node node({.ranks = 2, .timeout = kShort});
    set_fault(Fault::kAbortNeverEnds, 1, 0);
    const auto errors = node.run([](Backend& rank) {
      const DeviceArray data(rank, {1, 2});
      rank.communicator->all_reduce(data.tensor(), rank.device->communication_stream());
      rank.device->synchronize(rank.device->communication_stream());
      rank.communicator->barrier();
    });
    for (const std::string& error : errors) REQUIRE(contains(error, "all_reduce 0"));
  }
  set_fault(Fault::kNone);
  REQUIRE(steady_clock::now() - begin < kAtOnce);
}

TEST_CASE("nccl: when one rank has ended the others' calls throw", "[nccl]") {
  const FakeGpus gpus(2);
  Node node({.ranks = 2});
  node.rank(0).communicator.reset();
  const std::string error = error_of([&] { node.communicator(1).barrier(); });
  REQUIRE(contains(error, "3 the node's communicators have been closed"));
}

TEST_CASE("cuda backends: ranks and GPUs", "[nccl]") {
  const FakeGpus gpus(4);
  const auto make = [](int ranks, const std::string& communicator) {
    return error_of([&] { Node({.ranks = ranks, .communicator = communicator}); });
  };
  const auto ranks_of = [](int ranks) { return Node({.ranks = ranks}).rank_count(); };
  REQUIRE(ranks_of(0) == 4);
  REQUIRE(ranks_of(3) == 3);
  REQUIRE(ranks_of(1) == 1);
  REQUIRE(contains(make(5, "auto"), "2 5 ranks were asked for, 4 GPUs were found"));
  REQUIRE(contains(make(65, "auto"), "2 65 ranks"));
  REQUIRE(contains(make(4, "in_process"), "2 the communicator in_process cannot serve 4 GPUs"));
  const int64_t bytes = Node({.ranks = 4}).rank(3).device->total_bytes();
  REQUIRE(bytes == fake_device().total_bytes);

  fake_device().name_of_last = "another GPU";
  Node mixed({.ranks = 4});
  REQUIRE(mixed.rank(0).device->name() == "emulated GPU");
  REQUIRE(mixed.rank(3).device->name() == "another GPU");

  fake_device().count = 1;
  Node shared({.ranks = 3});
  REQUIRE(shared.rank_count() == 3);
  for (int rank = 0; rank < 3; ++rank) {
    REQUIRE(shared.communicator(rank).rank() == rank);
    REQUIRE(shared.rank(rank).device->total_bytes() == bytes / 3);
  }
  REQUIRE(contains(make(3, "nccl"), "2 NCCL cannot serve 3 ranks on one GPU"));
}
