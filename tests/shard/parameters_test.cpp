// Shards on 1 to 4 ranks: the same masters, whole units after gather, sums after reduce. Expected
// values are made from element numbers, so that every misplaced element is seen.
#include "shard/parameters.h"

#include <bit>
#include <limits>
#include <mutex>

#include "backend/quantization.h"
#include "shard/bfloat16_device.h"
#include "shard/ranks.h"
#include "support/catch.h"
#include "support/deferred_backend.h"

namespace {

using shard::Parameters;

// 300 and 1000 elements: neither is a multiple of any padding, and with 4 ranks the second tensor
// of the first unit begins and ends inside shards.
shard::Layout make_layout() {
  shard::Layout layout;
  layout.units = {{.name = "first"}, {.name = "second"}};
  shard::add_tensor(layout.units[0], "a", {5, 20}, {.standard_deviation = 1});
  shard::add_tensor(layout.units[0], "b", {200}, {.standard_deviation = 0.5, .cut = 2});
  shard::add_tensor(layout.units[1], "a", {10, 100}, {.standard_deviation = 2});
  return layout;
}

std::vector<float> read(backend::Backend& backend, const backend::Tensor& tensor) {
  std::vector<float> values(size_t(tensor.element_count()));
  backend.device->copy(values.data(), tensor.data, tensor.byte_count(),
                       backend.device->compute_stream());
  backend.device->synchronize(backend.device->compute_stream());
  return values;
}

void write(backend::Backend& backend, const backend::Tensor& tensor,
           const std::vector<float>& values) {
  backend.device->copy(tensor.data, values.data(), tensor.byte_count(),
                       backend.device->compute_stream());
  backend.device->synchronize(backend.device->compute_stream());
}

std::vector<float> initial(const shard::TensorSpec& spec, uint64_t seed) {
  std::vector<float> values(size_t(spec.shape.element_count()));
  shard::fill_initial(spec, seed, 0, values);
  return values;
}

}  // namespace

TEST_CASE("with one fp32 rank weights and gradients are views of the shards", "[parameters]") {
  const shard::Layout layout = make_layout();
  std::vector<backend::Backend> backends = backend::make_cpu_backends({.threads_per_rank = 1});
  Parameters parameters(layout, backends[0]);
  parameters.gather(0);
  REQUIRE(parameters.weight(0, "b").data == parameters.master_shard(0).slice(100, {200}).data);
  REQUIRE(parameters.gradient(0, "b").data == parameters.gradient_shard(0).slice(100, {200}).data);
  parameters.release(0);
}

TEST_CASE("every rank count gathers the same initial weights", "[parameters]") {
  const shard::Layout layout = make_layout();
  for (int rank_count : {1, 2, 3, 4}) {
    std::mutex mutex;
    int ranks_right = 0;
    shard_test::run_ranks(rank_count, [&](backend::Backend& backend) {
      Parameters parameters(layout, backend);
      parameters.initialize(17);
      bool is_right = true;
      for (int64_t unit = 0; unit < 2; ++unit) {
        parameters.gather(unit);
        for (const char* name : {"a", "b"}) {
          if (unit == 1 && std::string(name) == "b") continue;
          is_right &= read(backend, parameters.weight(unit, name)) ==
                      initial(layout.units[size_t(unit)].find(name), 17);
        }
        parameters.release(unit);
      }
      std::lock_guard lock(mutex);
      ranks_right += is_right;
    });
    INFO("ranks " << rank_count);
    REQUIRE(ranks_right == rank_count);
  }
}

// More than one piece of the upload, tensors that begin inside one, on streams that run late: a
// piece that is filled again too early shows.
TEST_CASE("initial masters do not depend on the number of threads", "[parameters]") {
  shard::Layout layout;
  layout.units = {{.name = "first"}, {.name = "second"}};
  shard::add_tensor(layout.units[0], "norm", {333}, {});
  shard::add_tensor(layout.units[0], "a", {4000, 2200}, {.standard_deviation = 1, .cut = 2});
  shard::add_tensor(layout.units[0], "b", {777}, {.standard_deviation = 1});
  shard::add_tensor(layout.units[1], "a", {70'000}, {.standard_deviation = 1});
  for (const bool is_lean : {false, true}) {
    std::vector<std::vector<float>> found;
    for (const int threads : {1, 4}) {
      auto backends = test::make_deferred_backends(1, test::Eagerness::kCompute);
      if (is_lean) {
        backends[0].device =
            std::make_unique<shard_test::Bfloat16Device>(std::move(backends[0].device));
      }
      Parameters parameters(
          layout, backends[0],
          {.memory = is_lean ? Parameters::Memory::kLean : Parameters::Memory::kStandard});
      parameters.initialize(17, threads);
      for (int64_t u = 0; u < 2; ++u) {
        const shard::Unit& unit = layout.units[size_t(u)];
        found.emplace_back(size_t(unit.element_count));
        parameters.copy_masters_to_host(u, 0, found.back());
        std::vector<float> expected;
        for (const shard::TensorSpec& spec : unit.tensors) {
          const std::vector<float> values = initial(spec, 17);
          expected.insert(expected.end(), values.begin(), values.end());
        }
        if (is_lean) {
          for (float& value : expected) value = backend::from_bfloat16(backend::to_bfloat16(value));
        }
        INFO(threads << " threads, unit " << u << ", lean " << is_lean);
        REQUIRE((found.back() == expected));
      }
    }
    REQUIRE((found[0] == found[2]));
    REQUIRE((found[1] == found[3]));
  }
}

TEST_CASE("gather sees new masters after they changed", "[parameters]") {
  const shard::Layout layout = make_layout();
  for (int rank_count : {1, 2, 3}) {
    std::mutex mutex;
    int ranks_right = 0;
    shard_test::run_ranks(rank_count, [&](backend::Backend& backend) {
      Parameters parameters(layout, backend);
      parameters.initialize(1);
      parameters.gather(1);
      parameters.release(1);
      const backend::Tensor master = parameters.master_shard(1);
      std::vector<float> mine(size_t(master.element_count()));
      for (size_t i = 0; i < mine.size(); ++i)
        mine[i] = float(backend.communicator->rank() * int(mine.size()) + int(i));
      write(backend, master, mine);
      parameters.masters_changed();
      parameters.gather(1);
      const std::vector<float> whole = read(backend, parameters.weight(1, "a"));
      bool is_right = true;
      for (size_t i = 0; i < whole.size(); ++i) is_right &= whole[i] == float(i);
      // The same through the host.
      parameters.release(1);
      parameters.copy_masters_from_host(1, 0, std::vector<float>(1000, 7.0f));
      parameters.gather(1);
      is_right &= read(backend, parameters.weight(1, "a")) == std::vector<float>(1000, 7.0f);
      std::lock_guard lock(mutex);
      ranks_right += is_right;
    });
    INFO("ranks " << rank_count);
    REQUIRE(ranks_right == rank_count);
  }
}

TEST_CASE("reduce adds the sum over the ranks to the gradient shards", "[parameters]") {
  const shard::Layout layout = make_layout();
  for (int rank_count : {1, 2, 3, 4}) {
    std::vector<float> sum(300, -1), again(300, -1);
    shard_test::run_ranks(rank_count, [&](backend::Backend& backend) {
      Parameters parameters(layout, backend);
      // With one rank the gradient tensor is the shard, so it is added to, not written.
      const auto micro_batch = [&] {
        const backend::Tensor b = parameters.gradient(0, "b");
        std::vector<float> values = read(backend, b);
        for (size_t i = 0; i < values.size(); ++i)
          values[i] += float((backend.communicator->rank() + 1) * int(i));
        write(backend, b, values);
        parameters.reduce(0);
      };
      micro_batch();
      micro_batch();
      const backend::Tensor shard = parameters.gradient_shard(0);
      parameters.copy_shard_to_host(shard, 0, 0, sum);
      // What is left from the step before does no harm, whatever it is.
      const float nan = std::numeric_limits<float>::quiet_NaN();
      parameters.copy_shard_from_host(shard, 0, 0, std::vector<float>(300, nan));
      parameters.discard_gradients();
      micro_batch();
      parameters.copy_shard_to_host(shard, 0, 0, again);
    });
    const int factor = 2 * rank_count * (rank_count + 1) / 2;
    for (size_t i = 0; i < 300; ++i) {
      INFO("ranks " << rank_count << ", element " << i);
      REQUIRE(sum[i] == (i < 100 ? 0.0f : float(factor * int(i - 100))));
      REQUIRE(again[i] == sum[i] / 2);
    }
  }
}

TEST_CASE("masters travel to the host and back in any ranges", "[parameters]") {
  const shard::Layout layout = make_layout();
  for (int rank_count : {1, 2, 3, 4}) {
    std::vector<float> source(1000), target(1000, -1);
    for (size_t i = 0; i < source.size(); ++i) source[i] = float(i);
    shard_test::run_ranks(rank_count, [&](backend::Backend& backend) {
      Parameters parameters(layout, backend);
      for (int64_t first = 0; first < 1000; first += 90) {
        const size_t count = size_t(std::min<int64_t>(90, 1000 - first));
        parameters.copy_masters_from_host(
            1, first, std::span<const float>(source).subspan(size_t(first), count));
      }
      for (int64_t first = 0; first < 1000; first += 333) {
        const size_t count = size_t(std::min<int64_t>(333, 1000 - first));
        parameters.copy_masters_to_host(1, first, std::span(target).subspan(size_t(first), count));
      }
    });
    INFO("ranks " << rank_count);
    REQUIRE(target == source);
  }
}

TEST_CASE("bf16 ranks gather rounded copies and keep fp32 masters", "[parameters]") {
  const shard::Layout layout = make_layout();
  for (int rank_count : {1, 3}) {
    std::mutex mutex;
    int ranks_right = 0;
    shard_test::run_ranks(rank_count, [&](backend::Backend& backend) {
      backend.device = std::make_unique<shard_test::Bfloat16Device>(std::move(backend.device));
      Parameters parameters(layout, backend);
      parameters.initialize(5);
      parameters.gather(0);
      const backend::Tensor weight = parameters.weight(0, "b");
      std::vector<uint16_t> halves(200);
      backend.device->copy(halves.data(), weight.data, weight.byte_count(),
                           backend.device->compute_stream());
      const std::vector<float> exact = initial(layout.units[0].find("b"), 5);
      bool is_right = weight.dtype == backend::DType::kBfloat16;
      for (size_t i = 0; i < exact.size(); ++i) {
        const float rounded = std::bit_cast<float>(uint32_t{halves[i]} << 16);
        is_right &= std::abs(rounded - exact[i]) <= std::abs(exact[i]) / 256;
      }
      parameters.release(0);
      std::lock_guard lock(mutex);
      ranks_right += is_right;
    });
    INFO("ranks " << rank_count);
    REQUIRE(ranks_right == rank_count);
  }
}
