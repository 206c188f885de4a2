// Several ranks on the CUDA kernels: on one GPU through the in-process communicator, each on a GPU
// of its own through NCCL where there are several. They train what one rank trains.
#include <array>
#include <functional>
#include <thread>

#include "cuda/model_rig.h"

namespace {

using cuda_test::Batch;
using cuda_test::Rig;
using cuda_test::Setup;
using shard::Sharding;

constexpr int kRows = 12, kSteps = 3;
constexpr Sharding kAll[] = {Sharding::kReplicated, Sharding::kGradients, Sharding::kFull};

struct Training {
  std::vector<double> losses, norms;
  model_test::Values masters;
};

// Trains on the same rows whatever the number of ranks, `rows` at a time on each.
Training train(int ranks, Sharding sharding, int64_t rows) {
  auto backends = cuda_test::make_ranks_under_test(ranks);
  Setup setup{.sharding = sharding};
  setup.options.rows = rows;
  std::vector<std::vector<Rig::StepEnd>> ends(static_cast<size_t>(ranks));
  Training run;
  for (const shard::Unit& unit : model::make_layout(cuda_test::tiny_config()).units) {
    for (const shard::TensorSpec& tensor : unit.tensors)
      run.masters[tensor.name].resize(size_t(tensor.shape.element_count()));
  }
  // Catch may not be asked in these threads.
  const auto work = [&](int rank) {
    backends[size_t(rank)].device->enter_thread();
    Rig rig(std::move(backends[size_t(rank)]), setup);
    const int64_t turns = kRows / (ranks * rows);
    for (int64_t step = 0; step < kSteps; ++step) {
      const Batch batch = cuda_test::periodic_batch(uint64_t(step), kRows);
      rig.begin_step(step);
      for (int64_t turn = 0; turn < turns; ++turn) {
        const int64_t length = cuda_test::tiny_config().sequence_length;
        rig.accumulate(batch.rows((turn * ranks + rank) * rows, rows, length), batch.counted(),
                       turn + 1 == turns);
      }
      ends[size_t(rank)].push_back(rig.end_step());
      rig.backend().communicator->barrier();
    }
    rig.copy_masters(run.masters);
    rig.backend().communicator->barrier();
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(work, rank);
  for (std::thread& thread : threads) thread.join();

  for (size_t step = 0; step < kSteps; ++step) {
    double loss = 0, count = 0;
    for (const auto& of_rank : ends) {
      loss += of_rank[step].losses.loss;
      count += double(of_rank[step].losses.count);
      REQUIRE_FALSE(of_rank[step].report.skipped);
      REQUIRE(of_rank[step].report.gradient_norm == ends[0][step].report.gradient_norm);
    }
    run.losses.push_back(loss / count);
    run.norms.push_back(ends[0][step].report.gradient_norm);
  }
  return run;
}

void require_alike(const Training& run, const Training& alone) {
  for (size_t step = 0; step < kSteps; ++step) {
    // Masters differ by the order of fp32 sums; now and then that moves a bf16 copy by a step.
    REQUIRE(run.losses[step] == Approx(alone.losses[step]).epsilon(1e-3));
    REQUIRE(run.norms[step] == Approx(alone.norms[step]).epsilon(5e-3));
  }
  for (const auto& [name, values] : alone.masters) {
    INFO(name);
    REQUIRE(cuda_test::distance(run.masters.at(name), values) < 2e-3);
  }
}

}  // namespace

// Several ranks are the slowest thing to emulate. A sanitizer sees all of its code with two of
// them, once; what their number changes is told by the plain build.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kIsBrief = true;
#else
constexpr bool kIsBrief = false;
#endif

TEST_CASE("cuda ranks: 2, 3 and 4 train like one", "[ranks]") {
  const Training alone = train(1, Sharding::kFull, kRows);
  REQUIRE(alone.losses.back() < alone.losses.front());
  for (const Sharding sharding : kAll) {
    for (const int ranks : {2, 3, 4}) {
      if (ranks > 2 && sharding == Sharding::kGradients) continue;  // Nothing new, and slow.
      if (kIsBrief && (ranks > 2 || sharding != Sharding::kFull)) continue;
      const int64_t rows = ranks == 2 ? 3 : kRows / ranks;  // Two turns, or one.
      INFO(ranks << " ranks, sharding " << int(sharding));
      require_alike(train(ranks, sharding, rows), alone);
    }
  }
}

TEST_CASE("cuda ranks: the same number gives the same bits", "[ranks]") {
  if (kIsBrief) return;
  const Training one = train(3, Sharding::kFull, 2), other = train(3, Sharding::kFull, 2);
  REQUIRE(one.losses == other.losses);
  REQUIRE((one.masters == other.masters));
}

TEST_CASE("cuda ranks: each on a GPU of its own, through NCCL, train like one", "[ranks]") {
  const Training alone = train(1, Sharding::kFull, kRows);
  for (const Sharding sharding : kAll) {
    if (kIsBrief && sharding != Sharding::kFull) continue;
    INFO("sharding " << int(sharding));
    cuda_test::with_gpus(2, [&] { require_alike(train(2, sharding, 3), alone); });
  }
}
