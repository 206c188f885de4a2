// A rank stops for good at each collective of a step and of an evaluation, one after the other: the
// others' deadline ends the step with an error that names it.
#include <condition_variable>
#include <mutex>

#include "support/catch.h"
#include "train/ranks_fixture.h"

namespace {

using backend::Communicator;
using backend::Stream;
using backend::Tensor;

constexpr std::chrono::milliseconds kDeadline(60);

// Where a rank stops: at its call number `at` (from 0). It is let go once the node gives up, as a
// thread cannot be killed.
class Stop {
 public:
  Stop(int rank, int64_t at) : rank_(rank), at_(at) {}

  void pass(int rank) {
    if (rank != rank_) return;
    std::unique_lock lock(mutex_);
    if (calls_++ != at_) return;
    has_stopped_ = true;
    changed_.wait(lock, [&] { return is_over_; });
  }
  void end() {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    changed_.notify_all();
  }
  int64_t calls() const { return calls_; }
  bool has_stopped() const { return has_stopped_; }

 private:
  const int rank_;
  const int64_t at_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t calls_ = 0;
  bool has_stopped_ = false, is_over_ = false;
};

class StoppingCommunicator final : public Communicator {
 public:
  StoppingCommunicator(std::unique_ptr<Communicator> inner, Stop& stop)
      : inner_(std::move(inner)), stop_(stop) {}
  int rank() const override { return inner_->rank(); }
  int rank_count() const override { return inner_->rank_count(); }
  void all_gather(const Tensor& out, const Tensor& in, Stream& stream) override {
    stop_.pass(rank());
    inner_->all_gather(out, in, stream);
  }
  void reduce_scatter(const Tensor& out, const Tensor& in, Stream& stream) override {
    stop_.pass(rank());
    inner_->reduce_scatter(out, in, stream);
  }
  void all_reduce(const Tensor& data, Stream& stream) override {
    stop_.pass(rank());
    inner_->all_reduce(data, stream);
  }
  void broadcast(const Tensor& data, int root, Stream& stream) override {
    stop_.pass(rank());
    inner_->broadcast(data, root, stream);
  }
  void barrier() override {
    stop_.pass(rank());
    inner_->barrier();
  }
  void abort(const std::string& reason) override {
    inner_->abort(reason);
    stop_.end();
  }
  void check() override { inner_->check(); }

 private:
  const std::unique_ptr<Communicator> inner_;
  Stop& stop_;
};

// Two micro-batches per rank.
train::RunConfig config_of(const std::string& sharding) {
  auto config = ranks_test::run_config(2, sharding, 1);
  config.model.layers = 1;
  config.training.batch_rows = 4;
  config.node.rank_timeout_seconds = double(kDeadline.count()) * 1e-3;
  return config;
}

// The error of a step and an evaluation; empty if there was none.
std::string run(const train::RunConfig& config, Stop& stop) {
  auto backends = train::choose_backends(config.node);
  for (backend::Backend& backend : backends) {
    backend.communicator =
        std::make_unique<StoppingCommunicator>(std::move(backend.communicator), stop);
  }
  train_test::NodeRig rig(config, std::move(backends));
  const data::Batch batch = ranks_test::make_batch(config, 0);
  const auto evaluate = [&](train::Rank& rank) {
    const auto row = [&](const std::vector<int32_t>& all) {
      return std::span(all).first(size_t(config.model.sequence_length));
    };
    rank.engine.transformer.evaluate(
        {row(batch.tokens), row(batch.targets), row(batch.document_starts)});
  };
  try {
    rig.trainer.step(batch);
    rig.ranks.run(evaluate);
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kResourceLost);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("ranks: whichever collective a rank stops at, the others notice", "[ranks]") {
  for (const std::string& sharding : ranks_test::kShardings) {
    const train::RunConfig config = config_of(sharding);
    Stop nowhere(0, -1);
    REQUIRE(run(config, nowhere).empty());
    // Gathers, reductions, the norm, the barrier.
    const int64_t collectives = sharding == "replicated"  ? 3 + 1
                                : sharding == "gradients" ? 14
                                                          : 14;
    INFO(sharding << ": " << nowhere.calls() << " collectives");
    REQUIRE(nowhere.calls() >= collectives);
    for (const int stopped : {0, 1}) {
      for (int64_t at = 0; at < nowhere.calls(); ++at) {
        INFO("rank " << stopped << " stops at collective " << at);
        std::string error;
        // On a machine so busy that a rank misses the deadline before the other one stops, again.
        for (int attempt = 0; attempt < 20; ++attempt) {
          Stop stop(stopped, at);
          error = run(config, stop);
          if (stop.has_stopped()) break;
        }
        INFO(error);
        REQUIRE(error.starts_with("rank " + std::to_string(1 - stopped) + " of 2: "));
        REQUIRE(
            error.ends_with(": rank " + std::to_string(stopped) + " did not arrive within 60 ms"));
      }
    }
  }
}

TEST_CASE("ranks: a rank that fails ends the step of all at once, with its own error", "[ranks]") {
  auto config = ranks_test::run_config(3);
  config.node.rank_timeout_seconds = 3600;
  train_test::NodeRig rig(config);
  data::Batch batch = ranks_test::make_batch(config, 0);
  batch.tokens.back() = 1 << 20;  // Only the last rank computes this row.
  std::string text;
  try {
    rig.trainer.step(batch);
  } catch (const base::Error& error) {
    text = error.what();
  }
  REQUIRE(text.starts_with("rank 2 of 3: batch: token 1048576 is outside"));
  // What the others were in cannot be gone on with.
  text.clear();
  try {
    rig.trainer.step(ranks_test::make_batch(config, 1));
  } catch (const base::Error& error) {
    text = error.what();
  }
  REQUIRE(text.find("rank 2 has failed: batch: token 1048576") != std::string::npos);
}
