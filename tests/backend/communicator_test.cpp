// Collectives between rank threads against plain sums, with 1 to 4 ranks; and what happens when a
// rank does not come.
//
// The ranks run in threads of their own. Nothing sleeps: a rank is missing because its thread has
// already ended.
#include <fmt/format.h>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "backend/in_process.h"
#include "support/catch.h"
#include "support/wrapped_device.h"

namespace {

using backend::Backend;
using backend::Communicator;
using backend::Stream;
using backend::Tensor;
using Floats = std::vector<float>;

std::vector<Floats> zero_ranks(int ranks, int64_t count) {
  return std::vector<Floats>(static_cast<size_t>(ranks), Floats(static_cast<size_t>(count)));
}

std::vector<Backend> make_backends(int ranks,
                                   std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  return backend::make_cpu_backends(
      {.ranks = ranks, .threads_per_rank = 1, .collective_timeout = timeout});
}

// Calls body(rank, its communicator, its stream) in one thread per rank, and waits for all.
using RankBody = std::function<void(int, Communicator&, Stream&)>;
void run_ranks(std::vector<Backend>& backends, const RankBody& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < int(backends.size()); ++rank) {
    threads.emplace_back([&, rank] {
      Backend& mine = backends[size_t(rank)];
      body(rank, *mine.communicator, mine.device->compute_stream());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

Tensor view(Floats& values) {
  return {values.data(), backend::DType::kFloat32, {int64_t(values.size())}};
}
Tensor part(Floats& values, int index, int64_t count) {
  return view(values).slice(index * count, {count});
}

// Values whose sum depends on the order of the additions.
std::vector<Floats> random_ranks(int ranks, int64_t count) {
  std::mt19937 generator(17);
  std::vector<Floats> values = zero_ranks(ranks, count);
  for (Floats& of_rank : values) {
    for (float& value : of_rank) value = float(int32_t(generator())) * 1e-3f;
  }
  return values;
}

// In fp32, in rank order.
Floats sum_of(const std::vector<Floats>& values) {
  Floats sum = values[0];
  for (size_t rank = 1; rank < values.size(); ++rank) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[rank][i];
  }
  return sum;
}

Floats joined(const std::vector<Floats>& values) {
  Floats all;
  for (const Floats& of_rank : values) all.insert(all.end(), of_rank.begin(), of_rank.end());
  return all;
}

Floats sub(const Floats& values, int index, int64_t count) {
  return Floats(values.begin() + index * count, values.begin() + (index + 1) * count);
}

// One rank, one element, less than a block, several blocks with a rest.
constexpr int64_t kCounts[] = {1, 7, 2500};

// Called in rank threads, where Catch2 2 allows no assertions.
std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& error) {
    return error.code() == base::ExitCode::kResourceLost ? error.what() : "not resource_lost";
  }
  return "no error";
}

}  // namespace

TEST_CASE("all_reduce gives every rank the sum in rank order") {
  for (int ranks : {1, 2, 3, 4}) {
    for (int64_t count : kCounts) {
      INFO("ranks " << ranks << " count " << count);
      std::vector<Backend> backends = make_backends(ranks);
      std::vector<Floats> values = random_ranks(ranks, count);
      const Floats expected = sum_of(values);
      run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
        communicator.all_reduce(view(values[size_t(rank)]), stream);
      });
      for (const Floats& of_rank : values) REQUIRE(of_rank == expected);
    }
  }
}

TEST_CASE("reduce_scatter gives every rank its part of the sum, apart or in place") {
  for (int ranks : {1, 2, 3, 4}) {
    for (int64_t count : kCounts) {
      for (bool in_place : {false, true}) {
        INFO("ranks " << ranks << " count " << count << " in place " << in_place);
        std::vector<Backend> backends = make_backends(ranks);
        std::vector<Floats> values = random_ranks(ranks, ranks * count);
        const Floats expected = sum_of(values);
        std::vector<Floats> outs = zero_ranks(ranks, count);
        run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
          Floats& mine = values[size_t(rank)];
          communicator.reduce_scatter(in_place ? part(mine, rank, count) : view(outs[size_t(rank)]),
                                      view(mine), stream);
        });
        for (int rank = 0; rank < ranks; ++rank) {
          const Floats actual =
              in_place ? sub(values[size_t(rank)], rank, count) : outs[size_t(rank)];
          REQUIRE(actual == sub(expected, rank, count));
        }
      }
    }
  }
}

TEST_CASE("all_gather gives every rank all parts, apart or in place") {
  for (int ranks : {1, 2, 3, 4}) {
    for (int64_t count : kCounts) {
      for (bool in_place : {false, true}) {
        INFO("ranks " << ranks << " count " << count << " in place " << in_place);
        std::vector<Backend> backends = make_backends(ranks);
        std::vector<Floats> parts = random_ranks(ranks, count);
        std::vector<Floats> outs = zero_ranks(ranks, ranks * count);
        run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
          Floats &mine = parts[size_t(rank)], &out = outs[size_t(rank)];
          if (in_place) std::copy(mine.begin(), mine.end(), out.begin() + rank * count);
          communicator.all_gather(view(out), in_place ? part(out, rank, count) : view(mine),
                                  stream);
        });
        for (const Floats& out : outs) REQUIRE(out == joined(parts));
      }
    }
  }
}

TEST_CASE("all_gather moves any type") {
  std::vector<Backend> backends = make_backends(2);
  std::vector<uint8_t> parts[2] = {{1, 2, 3}, {250, 251, 252}}, outs[2];
  for (auto& out : outs) out.resize(6);
  run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
    communicator.all_gather({outs[rank].data(), backend::DType::kUint8, {6}},
                            {parts[rank].data(), backend::DType::kUint8, {3}}, stream);
  });
  for (const auto& out : outs) REQUIRE(out == std::vector<uint8_t>{1, 2, 3, 250, 251, 252});
}

TEST_CASE("broadcast gives every rank the root's values") {
  for (int ranks : {1, 2, 3, 4}) {
    for (int root = 0; root < ranks; ++root) {
      std::vector<Backend> backends = make_backends(ranks);
      std::vector<Floats> values = random_ranks(ranks, 100);
      const Floats expected = values[size_t(root)];
      run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
        communicator.broadcast(view(values[size_t(rank)]), root, stream);
      });
      for (const Floats& of_rank : values) REQUIRE(of_rank == expected);
    }
  }
}

TEST_CASE("many collectives in a row do not run into each other") {
  constexpr int kRanks = 4, kRounds = 300;
  std::vector<Backend> backends = make_backends(kRanks);
  std::vector<int> mistakes(kRanks);
  run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
    for (int round = 0; round < kRounds; ++round) {
      Floats value{float(rank + round)}, all(kRanks);
      communicator.all_reduce(view(value), stream);
      if (value[0] != float(6 + kRanks * round)) ++mistakes[size_t(rank)];
      Floats mine{float(rank * round)};
      communicator.all_gather(view(all), view(mine), stream);
      for (int other = 0; other < kRanks; ++other) {
        if (all[size_t(other)] != float(other * round)) ++mistakes[size_t(rank)];
      }
      communicator.barrier();
    }
  });
  REQUIRE(mistakes == std::vector<int>(kRanks));
}

TEST_CASE("ranks know their number") {
  const std::vector<Backend> backends = make_backends(3);
  for (int rank = 0; rank < 3; ++rank) {
    REQUIRE(backends[size_t(rank)].communicator->rank() == rank);
    REQUIRE(backends[size_t(rank)].communicator->rank_count() == 3);
  }
}

TEST_CASE("a rank that never arrives is named at all that wait") {
  for (int missing : {0, 2}) {
    std::vector<Backend> backends = make_backends(3, std::chrono::milliseconds(50));
    std::vector<std::string> errors(3);
    run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
      if (rank == missing) return;
      Floats value{1};
      errors[size_t(rank)] = error_of([&] { communicator.all_reduce(view(value), stream); });
    });
    const std::string& error = errors[1];
    INFO(error);
    REQUIRE(error.starts_with("all_reduce: rank "));
    REQUIRE(error.ends_with(" did not arrive within 50 ms"));
    REQUIRE(error.find(fmt::format("rank {}", missing)) != std::string::npos);
    REQUIRE(errors[missing == 0 ? 2 : 0] == error);
  }
}

TEST_CASE("after a failure every call of every rank throws it again") {
  std::vector<Backend> backends = make_backends(4, std::chrono::milliseconds(20));
  Stream& stream = backends[0].device->compute_stream();
  const std::string error = error_of([&] { backends[1].communicator->barrier(); });
  REQUIRE(error == "barrier: rank 0, rank 2, rank 3 did not arrive within 20 ms");
  Floats value{1}, all(4);
  for (Backend& backend : backends) {
    Communicator& communicator = *backend.communicator;
    REQUIRE(error_of([&] { communicator.barrier(); }) == error);
    REQUIRE(error_of([&] { communicator.all_reduce(view(value), stream); }) == error);
    REQUIRE(error_of([&] { communicator.reduce_scatter(view(value), view(all), stream); }) ==
            error);
    REQUIRE(error_of([&] { communicator.all_gather(view(all), view(value), stream); }) == error);
    REQUIRE(error_of([&] { communicator.broadcast(view(value), 0, stream); }) == error);
  }
}

TEST_CASE("a rank whose device fails inside a collective is named, and nobody waits for it") {
  class FailingDevice : public test::WrappedDevice {
   public:
    using WrappedDevice::WrappedDevice;
    void copy(void*, const void*, int64_t, Stream&) override {
      throw base::resource_lost("the bus is gone");
    }
  };
  std::vector<Backend> backends = make_backends(3);
  backends[1].device = std::make_unique<FailingDevice>(std::move(backends[1].device));
  std::vector<backend::InProcessRank> ranks;
  for (Backend& one : backends) ranks.push_back({one.device.get(), one.ops.get()});
  auto communicators = backend::make_in_process_communicators(ranks, std::chrono::hours(1));
  for (size_t rank = 0; rank < 3; ++rank)
    backends[rank].communicator = std::move(communicators[rank]);
  std::vector<std::string> errors(3);
  run_ranks(backends, [&](int rank, Communicator& communicator, Stream& stream) {
    Floats mine{1}, all(3);
    errors[size_t(rank)] =
        error_of([&] { communicator.all_gather(view(all), view(mine), stream); });
  });
  REQUIRE(errors[0] == "rank 1: the bus is gone");
  REQUIRE(errors[1] == "the bus is gone");
  REQUIRE(errors[2] == "rank 1: the bus is gone");
}
