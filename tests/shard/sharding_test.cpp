// What ranks share out, seen from outside: whose memory holds what, when units may take each
// other's place, what a rank moves, and that no stream runs before what it needs.
#include <cmath>
#include <mutex>

#include "shard/bfloat16_device.h"
#include "shard/parameters.h"
#include "shard/ranks.h"
#include "support/catch.h"
#include "support/deferred_backend.h"

namespace {

using backend::Tensor;
using shard::Parameters;
using shard::Sharding;

constexpr Sharding kAll[] = {Sharding::kReplicated, Sharding::kGradients, Sharding::kFull};
constexpr int64_t kUnits = 7;

// Units of unequal sizes between a small first and a large last one.
shard::Layout layout_of_units() {
  shard::Layout layout;
  for (int64_t u = 0; u < kUnits; ++u) {
    layout.units.push_back({.name = "unit" + std::to_string(u)});
    shard::add_tensor(layout.units.back(), "a", {u == 6 ? 900 : 100 + 10 * u},
                      {.standard_deviation = 1});
    shard::add_tensor(layout.units.back(), "b", {37}, {.standard_deviation = 1});
  }
  return layout;
}

// Of element i of the gradient's tensor, as rank r makes it.
float gradient_value(int rank, int64_t unit, int64_t i) {
  return float((rank + 1) * 1000 + unit * 10) + float(i % 7);
}

void set_values(backend::Backend& backend, const Tensor& tensor, const std::vector<float>& values) {
  backend.device->copy(tensor.data, values.data(), tensor.byte_count(),
                       backend.device->compute_stream());
  backend.device->synchronize(backend.device->compute_stream());
}

std::vector<float> values_of(backend::Backend& backend, const Tensor& tensor) {
  std::vector<float> values(size_t(tensor.element_count()));
  backend.device->copy(values.data(), tensor.data, tensor.byte_count(),
                       backend.device->compute_stream());
  backend.device->synchronize(backend.device->compute_stream());
  return values;
}

// Results of all ranks; Catch may be asked about them afterwards.
class Verdict {
 public:
  void expect(bool is_right, const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (!is_right && failure_.empty()) failure_ = what;
  }
  void require() {
    INFO(failure_);
    REQUIRE(failure_.empty());
  }

 private:
  std::mutex mutex_;
  std::string failure_;
};

// One micro-batch: the forward pass over all units, then the backward, in which "a" gets its
// gradient twice, once to be written over and once to be added, and "b" gets none in odd units.
void pass(Parameters& parameters, backend::Backend& backend, Verdict& verdict) {
  const int rank = backend.communicator->rank();
  const auto expect_weights = [&](int64_t u) {
    const shard::TensorSpec& spec = parameters.layout().units[size_t(u)].find("a");
    std::vector<float> expected(size_t(spec.shape.element_count()));
    shard::fill_initial(spec, 5, 0, expected);
    verdict.expect(values_of(backend, parameters.weight(u, "a")) == expected, "weights");
  };
  for (int64_t u = 0; u < kUnits; ++u) {
    parameters.gather(u);
    if (u + 1 < kUnits) parameters.prefetch(u + 1);
    expect_weights(u);
    parameters.release(u);
  }
  for (int64_t u = kUnits - 1; u >= 0; --u) {
    parameters.gather(u);
    if (u > 0) parameters.prefetch(u - 1);
    expect_weights(u);
    const auto target = parameters.gradient_target(u, "a");
    std::vector<float> values(size_t(target.tensor.element_count()));
    for (size_t i = 0; i < values.size(); ++i) {
      // Where it says so, what is there counts; elsewhere it may be anything.
      if (i == 0 && target.accumulate) values = values_of(backend, target.tensor);
      values[i] += gradient_value(rank, u, int64_t(i));
    }
    set_values(backend, target.tensor, values);
    const auto again = parameters.gradient_target(u, "a");
    verdict.expect(again.accumulate && again.tensor.data == target.tensor.data, "second target");
    if (u % 2 == 0) {
      const Tensor b = parameters.gradient(u, "b");
      std::vector<float> added = values_of(backend, b);
      for (float& value : added) value += float(rank);
      set_values(backend, b, added);
    }
    parameters.release(u);
    parameters.reduce(u);
  }
}

// The whole gradient of a unit, after `passes` micro-batches.
std::vector<float> expected_gradient(const shard::Unit& unit, int64_t u, int ranks, int passes) {
  std::vector<float> sum(size_t(unit.element_count), 0.0f);
  const int64_t a_count = unit.find("a").shape.element_count();
  for (int rank = 0; rank < ranks; ++rank) {
    for (int64_t i = 0; i < unit.element_count; ++i) {
      const float once = i < a_count ? gradient_value(rank, u, i) : u % 2 == 0 ? float(rank) : 0.0f;
      sum[size_t(i)] += float(passes) * once;
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("sharding: weights are whole where they are used, gradients add up", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  constexpr int kPasses = 3;
  for (const Sharding sharding : kAll) {
    for (const int ranks : {1, 2, 3, 4}) {
      INFO(ranks << " ranks, sharding " << int(sharding));
      Verdict verdict;
      shard_test::run_ranks(ranks, [&](backend::Backend& backend) {
        Parameters parameters(layout, backend, {.sharding = sharding});
        parameters.initialize(5);
        for (int i = 0; i < kPasses; ++i) {
          parameters.expect_more_micro_batches(i + 1 < kPasses);
          pass(parameters, backend, verdict);
        }
        parameters.await_reductions();
        for (int64_t u = 0; u < kUnits; ++u) {
          const shard::Unit& unit = layout.units[size_t(u)];
          const std::vector<float> expected = expected_gradient(unit, u, ranks, kPasses);
          // What this rank does not hold stays as it is here.
          std::vector<float> found = expected;
          const Tensor shard = parameters.gradient_shard(u);
          parameters.copy_shard_to_host(shard, u, 0, found);
          verdict.expect(found == expected, "gradient of " + unit.name);
          // The padding too: the norm is over all of the shard.
          double sum = 0, part = 0;
          for (const float value : values_of(backend, shard)) sum += value;
          const int64_t begin =
              parameters.is_sharded() ? shard.element_count() * backend.communicator->rank() : 0;
          for (int64_t i = begin; i < std::min(unit.element_count, begin + shard.element_count());
               ++i)
            part += expected[size_t(i)];
          verdict.expect(sum == part, "padding of " + unit.name);
        }
      });
      verdict.require();
    }
  }
}

TEST_CASE("sharding: what is allocated is what was planned", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  for (const bool is_bfloat16 : {false, true}) {
    for (const Sharding sharding : kAll) {
      for (const int ranks : {1, 2, 5}) {
        Verdict verdict;
        shard_test::run_ranks(ranks, [&](backend::Backend& backend) {
          if (is_bfloat16) {
            backend.device =
                std::make_unique<shard_test::Bfloat16Device>(std::move(backend.device));
          }
          const Parameters parameters(layout, backend, {.sharding = sharding});
          const auto planned = shard::planned_bytes(layout, {.sharding = sharding}, ranks,
                                                    backend.device->compute_dtype());
          verdict.expect(backend.device->allocated_bytes() == planned.sum(), "bytes");
        });
        verdict.require();
      }
    }
  }
  // In order of memory.
  const auto bytes = [&](Sharding sharding) {
    return shard::planned_bytes(layout, {.sharding = sharding}, 4, backend::DType::kBfloat16).sum();
  };
  REQUIRE(bytes(Sharding::kFull) < bytes(Sharding::kGradients));
  REQUIRE(bytes(Sharding::kGradients) < bytes(Sharding::kReplicated));
}

TEST_CASE("sharding: traffic is what the policy must move", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  constexpr int kRanks = 3;
  int64_t whole = 0, middle = 0, shard_bytes = 0;
  for (int64_t u = 0; u < kUnits; ++u) {
    const int64_t padded = 4 * layout.padded_count(u, kRanks);
    whole += padded;
    shard_bytes += 4 * layout.padded_count(u, 1);
    // All that share two places, but for the two that are still there when the pass turns.
    if (u >= 1 && u + 1 < kUnits) middle += padded;
    if (u == kUnits - 2 || u == kUnits - 3) middle -= padded;
  }
  for (const Sharding sharding : kAll) {
    INFO("sharding " << int(sharding));
    Verdict verdict;
    shard_test::run_ranks(kRanks, [&](backend::Backend& backend) {
      Parameters parameters(layout, backend, {.sharding = sharding});
      parameters.initialize(5);
      parameters.start_traffic();
      pass(parameters, backend, verdict);
      const shard::Traffic traffic = parameters.stop_traffic();
      const int64_t gathered = sharding == Sharding::kFull        ? whole + middle
                               : sharding == Sharding::kGradients ? whole
                                                                  : 0;
      const bool is_replicated = sharding == Sharding::kReplicated;
      verdict.expect(traffic.gathered_bytes == gathered / kRanks * (kRanks - 1), "gathered");
      // A shard's padding differs with the ranks.
      const int64_t reduced = is_replicated ? 2 * (shard_bytes / kRanks) : whole / kRanks;
      verdict.expect(std::abs(double(traffic.reduced_bytes - reduced * (kRanks - 1))) < 100,
                     "reduced");
      verdict.expect(traffic.exposed_seconds > 0, "exposed");
    });
    verdict.require();
  }
}

TEST_CASE("sharding: masters written on the device are gathered once it is said", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  for (const Sharding sharding : kAll) {
    for (const int ranks : {1, 2}) {
      Verdict verdict;
      shard_test::run_ranks(ranks, [&](backend::Backend& backend) {
        Parameters parameters(layout, backend, {.sharding = sharding});
        parameters.initialize(5);
        parameters.gather(1);
        parameters.release(1);
        const Tensor master = parameters.master_shard(1);
        set_values(backend, master, std::vector<float>(size_t(master.element_count()), 2.0f));
        parameters.masters_changed();
        parameters.gather(1);
        verdict.expect(
            values_of(backend, parameters.weight(1, "a")) == std::vector<float>(110, 2.0f),
            "changed");
        parameters.release(1);
        // With its copy in the compute dtype, if it has one apart.
        const std::vector<float> threes(size_t(master.element_count()), 3.0f);
        set_values(backend, master, threes);
        if (parameters.copy_shard(1)) set_values(backend, parameters.copy_shard(1), threes);
        parameters.masters_updated(1);
        parameters.gather(1);
        verdict.expect(
            values_of(backend, parameters.weight(1, "a")) == std::vector<float>(110, 3.0f),
            "updated");
        parameters.release(1);
      });
      INFO(ranks << " ranks, sharding " << int(sharding));
      verdict.require();
    }
  }
}

TEST_CASE("sharding: a unit in use keeps its place", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  shard_test::run_ranks(2, [&](backend::Backend& backend) {
    Parameters parameters(layout, backend);
    parameters.initialize(5);
    parameters.gather(1);
    parameters.prefetch(2);
    // The first and the last unit have places of their own.
    parameters.gather(0);
    parameters.gather(kUnits - 1);
    parameters.gather(2);
    for (const int64_t u : {int64_t{0}, int64_t{1}, int64_t{2}, kUnits - 1}) parameters.release(u);
  });
}

TEST_CASE("sharding: copies to the host wait for what is queued", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  for (const auto eagerness : {test::Eagerness::kCompute, test::Eagerness::kOthers}) {
    auto backends = test::make_deferred_backends(2, eagerness);
    std::vector<float> found(137, -1), masters(137, -1);
    std::vector<std::thread> threads;
    for (backend::Backend& backend : backends) {
      threads.emplace_back([&] {
        Parameters parameters(layout, backend);
        const Tensor target = parameters.gradient_target(0, "a").tensor;
        const std::vector<float> ones(100, 1.0f);
        backend.device->copy(target.data, ones.data(), target.byte_count(),
                             backend.device->compute_stream());
        parameters.reduce(0);
        parameters.copy_shard_to_host(parameters.gradient_shard(0), 0, 0, found);
        const Tensor master = parameters.master_shard(0);
        const std::vector<float> fours(size_t(master.element_count()), 4.0f);
        backend.device->copy(master.data, fours.data(), master.byte_count(),
                             backend.device->compute_stream());
        parameters.copy_masters_to_host(0, 0, masters);
        backend.communicator->barrier();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == (i < 100 ? 2.0f : 0.0f));
    REQUIRE(masters == std::vector<float>(137, 4.0f));
  }
}

// Two units' work and what lies between: the host is held back at the third.
TEST_CASE("sharding: the host is never more than two units ahead", "[sharding]") {
  const shard::Layout layout = layout_of_units();
  auto backends = test::make_deferred_backends(2, test::Eagerness::kCompute);
  std::vector<int64_t> ahead(2);
  std::vector<std::thread> threads;
  for (backend::Backend& backend : backends) {
    threads.emplace_back([&] {
      Parameters parameters(layout, backend);
      parameters.initialize(5);
      std::vector<std::unique_ptr<backend::Event>> computed;
      int64_t& most = ahead[size_t(backend.communicator->rank())];
      for (int64_t u = 0; u < kUnits; ++u) {
        parameters.gather(u);
        int64_t waiting = 0;
        for (const auto& event : computed) waiting += !test::has_happened(*event);
        most = std::max(most, waiting);
        computed.push_back(backend.device->record(backend.device->compute_stream()));
        parameters.release(u);
      }
      backend.device->synchronize(backend.device->compute_stream());
      backend.communicator->barrier();
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(ahead[0] <= 2);
  REQUIRE(ahead[0] >= 1);
  REQUIRE(ahead[1] <= 2);
}
