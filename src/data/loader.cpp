// A queue between the thread that reads and the one that trains. Each run of the thread has a queue
// of its own, so going to another step is: end this run, start the next.
#include "data/loader.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <thread>

#include "base/error.h"
#include "base/thread.h"

namespace data {
namespace {

Batch make_batch(const Sampler& sampler, const LoaderOptions& options, int64_t step) {
  const auto row_length = size_t(sampler.sequence_length());
  const size_t total = size_t(options.rows_per_rank) * row_length;
  Batch batch{.step = step};
  for (auto* values : {&batch.tokens, &batch.targets, &batch.document_starts})
    values->resize(total);
  const int64_t first_row = (step * options.ranks + options.rank) * options.rows_per_rank;
  for (int64_t i = 0; i < options.rows_per_rank; ++i) {
    const auto row_of = [&](std::vector<int32_t>& values) {
      return std::span(values).subspan(size_t(i) * row_length, row_length);
    };
    sampler.training_row(options.part, first_row + i,
                         {.tokens = row_of(batch.tokens),
                          .targets = row_of(batch.targets),
                          .document_starts = row_of(batch.document_starts)});
  }
  batch.target_count = int64_t(total) - std::count(batch.targets.begin(), batch.targets.end(), -1);
  return batch;
}

// The thread from one seek to the next.
class Run {
 public:
  Run(const Sampler& sampler, const LoaderOptions& options, int64_t first_step)
      : queue_(size_t(options.prefetch)), thread_([this, &sampler, options, first_step] {
          base::set_thread_name("data-loader");
          try {
            for (int64_t step = first_step; queue_.push(make_batch(sampler, options, step));)
              ++step;
          } catch (...) {
            error_ = std::current_exception();
          }
          queue_.close();
        }) {}

  ~Run() {
    queue_.close();
    thread_.join();
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // The batches made before an error still come; after them the error, again and again.
  Batch next() {
    std::optional<Batch> batch = queue_.pop();
    if (!batch) std::rethrow_exception(error_);
    return std::move(*batch);
  }

 private:
  base::BoundedQueue<Batch> queue_;
  std::exception_ptr error_;  // Written before the queue is closed, read after.
  std::thread thread_;        // Last, because it uses the others.
};

}  // namespace

struct Loader::State {
  const Sampler& sampler;
  const LoaderOptions options;
  std::unique_ptr<Run> run;
};

Loader::Loader(const Sampler& sampler, const LoaderOptions& options, int64_t first_step)
    : state_(new State{.sampler = sampler, .options = options, .run = nullptr}) {
  CHECK(options.ranks >= 1 && options.rank >= 0 && options.rank < options.ranks, "rank {} of {}",
        options.rank, options.ranks);
  CHECK(options.rows_per_rank >= 1 && options.prefetch >= 1, "{} rows, {} ahead",
        options.rows_per_rank, options.prefetch);
  seek(first_step);
}

Loader::~Loader() = default;

Batch Loader::next() {
  return state_->run->next();
}

void Loader::seek(int64_t step) {
  const int64_t rows_per_step = state_->options.ranks * state_->options.rows_per_rank;
  if (step < 0 || step > std::numeric_limits<int64_t>::max() / rows_per_step / 2) {
    throw base::bad_input(fmt::format("data loader: there is no step {}", step));
  }
  state_->run.reset();
  state_->run = std::make_unique<Run>(state_->sampler, state_->options, step);
}

}  // namespace data
