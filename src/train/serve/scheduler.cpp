#include "train/serve/scheduler.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/log.h"
#include "base/thread.h"

namespace train {

using model::Decoder;

Scheduler::Scheduler(const Options& options, const MakeDecoder& make_decoder)
    : options_(options), running_(size_t(options.sequences)) {
  thread_ = std::thread([this, make_decoder] {
    base::set_thread_name("decoder");
    run(make_decoder);
  });
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [&] { return is_ready_; });
  if (!start_error_) return;
  lock.unlock();
  thread_.join();
  std::rethrow_exception(start_error_);
}

Scheduler::~Scheduler() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool Scheduler::submit(const std::shared_ptr<ServedRequest>& request) {
  const auto prompts = int64_t(request->generations.size());
  std::lock_guard lock(mutex_);
  if (!broken_.empty()) request->failure = broken_;
  if (request->is_done()) return true;
  drop_abandoned_prompts();
  if (waiting_prompts_ + prompts > options_.queue && waiting_prompts_ > 0) return false;
  waiting_.push_back(request);
  waiting_prompts_ += prompts;
  work_.notify_all();
  return true;
}

void Scheduler::watch(ServedRequest& request,
                      const std::function<bool(const ServedRequest&)>& look) {
  constexpr std::chrono::milliseconds kOften(100);
  std::unique_lock lock(mutex_);
  while (!look(request)) progress_.wait_for(lock, kOften);
}

void Scheduler::abandon(ServedRequest& request) {
  std::lock_guard lock(mutex_);
  request.is_abandoned = true;
}

void Scheduler::run(const MakeDecoder& make_decoder) {
  try {
    auto decoder = make_decoder();
    std::lock_guard lock(mutex_);
    decoder_ = std::move(decoder);
  } catch (...) {
    std::lock_guard lock(mutex_);
    start_error_ = std::current_exception();
  }
  {
    std::lock_guard lock(mutex_);
    is_ready_ = true;
  }
  progress_.notify_all();
  if (start_error_) return;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      const auto is_running = [](const Running& one) { return one.request != nullptr; };
      work_.wait(lock, [&] {
        return is_stopping_ || !waiting_.empty() || std::ranges::any_of(running_, is_running);
      });
      if (is_stopping_) break;
      drop_abandoned_sequences();
      drop_abandoned_prompts();
      admit();
    }
    try {
      step();
    } catch (const std::exception& error) {
      base::log_error("decoding failed: {}", error.what());
      fail_all(error.what());
    }
    progress_.notify_all();
  }
  fail_all("the server is stopping");
  progress_.notify_all();
  decoder_.reset();
}

// Under the mutex. Not while the decoder works: it may be at one of them.
void Scheduler::drop_abandoned_sequences() {
  for (Running& one : running_) {
    if (one.request && one.request->is_abandoned) one = {};
  }
}

// Under the mutex.
void Scheduler::drop_abandoned_prompts() {
  std::erase_if(waiting_, [&](const std::shared_ptr<ServedRequest>& request) {
    if (!request->is_abandoned) return false;
    waiting_prompts_ -= int64_t(request->generations.size() - request->started);
    return true;
  });
}

// Under the mutex. One prompt of the request that has waited longest, which then goes to the end.
void Scheduler::admit() {
  for (size_t sequence = 0; sequence < running_.size() && !waiting_.empty(); ++sequence) {
    if (running_[sequence].request) continue;
    const std::shared_ptr<ServedRequest> request = waiting_.front();
    waiting_.pop_front();
    --waiting_prompts_;
    Generation* const generation = request->generations[request->started++].get();
    if (request->started < request->generations.size()) waiting_.push_back(request);
    running_[sequence] = {.request = request, .generation = generation};
    decoder_->truncate(int64_t(sequence), 0);
  }
}

// Those that write get their one token first; prompts share the rest of the batch, each with what
// it may have at least, so that a long one does not hold up short ones.
std::vector<Decoder::Piece> Scheduler::next_pieces() const {
  int64_t rows = options_.batch_rows, prompts = 0;
  for (const Running& one : running_) {
    if (!one.request) continue;
    const int64_t missing = int64_t(one.generation->ids().size()) - one.appended;
    missing == 1 ? --rows : ++prompts;
  }
  std::vector<Decoder::Piece> pieces;
  for (size_t sequence = 0; sequence < running_.size(); ++sequence) {
    const Running& one = running_[sequence];
    if (!one.request) continue;
    const auto missing = std::span(one.generation->ids()).subspan(size_t(one.appended));
    int64_t share = 1;
    if (missing.size() > 1) {
      share = std::min(int64_t(missing.size()), std::max<int64_t>(1, rows / prompts));
      --prompts;
      rows -= share;
    }
    const bool is_last = share == int64_t(missing.size());
    pieces.push_back({.sequence = int64_t(sequence),
                      .tokens = missing.first(size_t(share)),
                      .logits = one.generation->wants_prompt_logits() ? Decoder::Logits::kAll
                                : is_last                             ? Decoder::Logits::kLast
                                                                      : Decoder::Logits::kNone});
  }
  return pieces;
}

// The decoder works without the mutex; ids of generations change only in hear(), which is told
// under it, on this thread.
void Scheduler::step() {
  const std::vector<Decoder::Piece> pieces = next_pieces();
  if (pieces.empty()) return;
  std::vector<std::vector<int32_t>> tokens;  // Copies: ids() may grow while logits come.
  std::vector<Decoder::Piece> stable = pieces;
  tokens.reserve(pieces.size());
  for (Decoder::Piece& piece : stable) {
    tokens.emplace_back(piece.tokens.begin(), piece.tokens.end());
    piece.tokens = tokens.back();
  }
  decoder_->append(stable, [&](int64_t sequence, int64_t position, std::span<const float> logits) {
    std::lock_guard lock(mutex_);
    Running& one = running_[size_t(sequence)];
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
      one.request->failure = "the model says nothing: its logits are not finite";
    } else if (!one.generation->is_finished()) {
      one.generation->hear(position, logits);
    }
  });
  std::lock_guard lock(mutex_);
  for (const Decoder::Piece& piece : stable)
    running_[size_t(piece.sequence)].appended += int64_t(piece.tokens.size());
  retire_finished();
}

// Under the mutex.
void Scheduler::retire_finished() {
  for (Running& one : running_) {
    if (!one.request) continue;
    if (!one.request->failure.empty()) {
      one.request->is_abandoned = true;
    } else if (one.generation->is_finished()) {
      ++one.request->finished;
      one = {};
    }
  }
}

// Whatever broke, the next step would not be better: a lost device does not come back.
void Scheduler::fail_all(const std::string& reason) {
  std::lock_guard lock(mutex_);
  broken_ = reason;
  for (Running& one : running_) {
    if (one.request) one.request->failure = reason;
    one = {};
  }
  for (const auto& request : waiting_) request->failure = reason;
  waiting_.clear();
  waiting_prompts_ = 0;
}

}  // namespace train
