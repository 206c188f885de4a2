// Two queues between the thread that reads and the one that trains: samples go one way, batches
// come back.
#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/thread.h"

namespace data {
namespace {

Batch make_batch(const Sampler& sampler, const std::vector<SampleRange>& ranges, int64_t rows) {
  const auto row_length = size_t(sampler.sequence_length());
  const size_t total = size_t(rows) * row_length;
  Batch batch;
  for (auto* values : {&batch.tokens, &batch.targets, &batch.document_starts})
    values->resize(total);
  size_t row = 0;
  for (const SampleRange& range : ranges) {
    for (int64_t sample = range.first; sample < range.end(); ++sample, ++row) {
      const auto row_of = [&](std::vector<int32_t>& values) {
        return std::span(values).subspan(row * row_length, row_length);
      };
      sampler.training_row(sample, {.tokens = row_of(batch.tokens),
                                    .targets = row_of(batch.targets),
                                    .document_starts = row_of(batch.document_starts)});
    }
  }
  batch.target_count = int64_t(total) - std::count(batch.targets.begin(), batch.targets.end(), -1);
  return batch;
}

// The samples on their way to the reading thread.
class SampleQueue {
 public:
  void add(const SampleRange& range) {
    const std::lock_guard lock(mutex_);
    ranges_.add(range);
    changed_.notify_one();
  }
  // Waits for so many; nothing once it is closed.
  std::optional<std::vector<SampleRange>> take(int64_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_closed_ || ranges_.count() >= count; });
    if (is_closed_) return std::nullopt;
    return ranges_.take(count);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    changed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  SampleRanges ranges_;
  bool is_closed_ = false;
};

}  // namespace

struct Loader::State {
  State(const Sampler& sampler_in, const LoaderOptions& options_in)
      : sampler(sampler_in),
        options(options_in),
        batches(size_t(options.prefetch)),
        thread([this] { read(); }) {}
  ~State() {
    samples.close();
    batches.close();
    thread.join();
  }

  void read() {
    base::set_thread_name("data-loader");
    try {
      while (const auto ranges = samples.take(options.rows)) {
        if (!batches.push(make_batch(sampler, *ranges, options.rows))) break;
      }
    } catch (...) {
      error = std::current_exception();
    }
    batches.close();
  }

  const Sampler& sampler;
  const LoaderOptions options;
  SampleRanges left;
  SampleQueue samples;
  base::BoundedQueue<Batch> batches;
  std::exception_ptr error;  // Written before the batches are closed, read after.
  std::thread thread;        // Last, because it uses the others.
};

Loader::Loader(const Sampler& sampler, const LoaderOptions& options) {
  CHECK(options.rows >= 1 && options.prefetch >= 1, "{} rows, {} ahead", options.rows,
        options.prefetch);
  state_ = std::make_unique<State>(sampler, options);
}

Loader::~Loader() = default;

void Loader::add(const SampleRange& range) {
  const int64_t limit = state_->sampler.sample_limit();
  if (range.first < 0 || range.count < 1 || range.first > limit - range.count) {
    throw base::bad_input(
        fmt::format("data loader: there are no {} samples from {} on", range.count, range.first));
  }
  state_->left.add(range);
  state_->samples.add(range);
}

const SampleRanges& Loader::left() const {
  return state_->left;
}

bool Loader::has_batch() const {
  return state_->left.count() >= state_->options.rows;
}

// The batches made before an error still come; after them the error, again and again.
Batch Loader::next() {
  CHECK(has_batch(), "{} samples are left for {} rows", state_->left.count(), state_->options.rows);
  std::optional<Batch> batch = state_->batches.pop();
  if (!batch) std::rethrow_exception(state_->error);
  state_->left.take(state_->options.rows);
  return std::move(*batch);
}

}  // namespace data
