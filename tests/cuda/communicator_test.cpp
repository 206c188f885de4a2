// Collectives of the ranks of a node, by what the device under test has: NCCL where there is a GPU
// for each rank, the ranks' own copies where they share one.
#include <cmath>
#include <thread>

#include "cuda/device_under_test.h"
#include "cuda/node.h"
#include "support/catch.h"

using namespace cuda_test;
using backend::DType;
using backend::Tensor;

namespace {

float value_of(int rank, int64_t i) {
  return float(std::sin(double(rank * 1000 + i)));
}

std::vector<float> values_of(int rank, int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(value_of(rank, i));
  return values;
}

double sum_of(int ranks, int64_t i) {
  double sum = 0;
  for (int rank = 0; rank < ranks; ++rank) sum += double(value_of(rank, i));
  return sum;
}

// In another order than NCCL's: R roundings of fp32 of numbers up to R.
void require_sum(float found, int ranks, int64_t i) {
  REQUIRE(std::abs(double(found) - sum_of(ranks, i)) <= 6e-8 * ranks * ranks);
}

struct Result {
  std::vector<float> gathered, gathered_in_place, scattered, scattered_in_place, reduced,
      broadcasted;
};

Result run_all(backend::Backend& rank, int64_t count) {
  const int me = rank.communicator->rank(), ranks = rank.communicator->rank_count();
  backend::Communicator& communicator = *rank.communicator;
  backend::Stream& stream = rank.device->communication_stream();
  DeviceArray mine(rank, values_of(me, count)), wide(rank, values_of(me, ranks * count));
  DeviceArray narrow(rank, std::vector<float>(size_t(count))), own(rank, values_of(me, count));
  DeviceArray all(rank, std::vector<float>(size_t(ranks * count))),
      place(rank, std::vector<float>(size_t(ranks * count)));
  const Tensor part = place.tensor().slice(me * count, {count});
  rank.device->copy(part.data, mine.tensor().data, part.byte_count(), stream);

  Result result;
  communicator.all_gather(all.tensor(), mine.tensor(), stream);
  communicator.all_gather(place.tensor(), part, stream);
  result.gathered = all.download(stream);
  result.gathered_in_place = place.download(stream);
  communicator.reduce_scatter(narrow.tensor(), wide.tensor(), stream);
  communicator.reduce_scatter(wide.tensor().slice(me * count, {count}), wide.tensor(), stream);
  result.scattered = narrow.download(stream);
  result.scattered_in_place = wide.download(stream);
  communicator.all_reduce(mine.tensor(), stream);
  result.reduced = mine.download(stream);
  communicator.broadcast(own.tensor(), ranks - 1, stream);
  result.broadcasted = own.download(stream);
  communicator.barrier();
  return result;
}

void require_right(const Result& result, int me, int ranks, int64_t count) {
  REQUIRE(result.gathered == result.gathered_in_place);
  for (int64_t i = 0; i < count; ++i) {
    for (int rank = 0; rank < ranks; ++rank)
      REQUIRE(result.gathered[size_t(rank * count + i)] == value_of(rank, i));
    require_sum(result.scattered[size_t(i)], ranks, me * count + i);
    require_sum(result.reduced[size_t(i)], ranks, i);
    REQUIRE(result.broadcasted[size_t(i)] == value_of(ranks - 1, i));
  }
  // The rest of a sum that lies in its own input is as it was.
  for (int64_t i = 0; i < ranks * count; ++i) {
    const bool is_mine = i / count == me;
    REQUIRE(result.scattered_in_place[size_t(i)] ==
            (is_mine ? result.scattered[size_t(i % count)] : value_of(me, i)));
  }
}

}  // namespace

namespace cuda_test {

void require_right_collectives(const std::string& communicator, int ranks) {
  INFO(communicator << " with " << ranks << " ranks");
  Node node({.ranks = ranks, .communicator = communicator});
  for (const int64_t count : {1, 257, 4096}) {
    std::vector<Result> results(static_cast<size_t>(ranks));
    for (const std::string& error : node.run([&](backend::Backend& rank) {
           results[size_t(rank.communicator->rank())] = run_all(rank, count);
         })) {
      REQUIRE(error.empty());
    }
    for (int rank = 0; rank < ranks; ++rank)
      require_right(results[size_t(rank)], rank, ranks, count);
  }
}

}  // namespace cuda_test

TEST_CASE("cuda communicator: all collectives with as many ranks as there may be",
          "[communicator]") {
  for (const int ranks : {1, 2, 3, 4}) {
    const int devices = backend::count_cuda_devices();
    if (devices > 1 && ranks > devices) continue;
    require_right_collectives("auto", ranks);
  }
}

TEST_CASE("cuda communicator: NCCL and in_process with one rank", "[communicator]") {
  require_right_collectives("nccl", 1);
  require_right_collectives("in_process", 1);
}

TEST_CASE("cuda communicator: bf16 and bytes can be gathered", "[communicator]") {
  Node node({.ranks = 1, .communicator = "nccl"});
  const auto errors = node.run([](backend::Backend& rank) {
    DeviceArray from(rank, {1.0f, 2.0f}), to(rank, {0.0f, 0.0f});
    backend::Stream& stream = rank.device->compute_stream();
    for (const DType dtype : {DType::kBfloat16, DType::kInt8}) {
      const int64_t count = 8 / backend::bytes_per_element(dtype);
      rank.communicator->all_gather({to.tensor().data, dtype, {count}},
                                    {from.tensor().data, dtype, {count}}, stream);
      if (to.download(stream) != std::vector<float>{1.0f, 2.0f}) throw base::bad_input("differs");
    }
  });
  REQUIRE(errors[0].empty());
}

TEST_CASE("cuda communicator: after abort() every call throws its reason", "[communicator]") {
  for (const char* communicator : {"auto", "nccl", "in_process"}) {
    Node node({.ranks = 1, .communicator = communicator});
    node.communicator(0).abort("the disk is full");
    node.communicator(0).abort("another reason");
    const auto errors = node.run([](backend::Backend& rank) {
      DeviceArray data(rank, {1.0f});
      rank.communicator->all_reduce(data.tensor(), rank.device->compute_stream());
    });
    INFO(communicator);
    REQUIRE(errors[0].find("the disk is full") != std::string::npos);
    REQUIRE(node.run([](backend::Backend& rank) { rank.communicator->barrier(); })[0].find(
                "the disk is full") != std::string::npos);
  }
}
