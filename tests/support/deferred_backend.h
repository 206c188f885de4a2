// CPU ranks whose streams are real: what is queued on a stream runs later, in an order that is as
// unlike the program's as its events allow. A wait that is missing between two streams then gives
// wrong numbers, as it would on a GPU on a bad day.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "backend/in_process.h"
#include "support/wrapped_device.h"

namespace test {

// What runs first where several streams can go on.
enum class Eagerness {
  kCompute,  // Streams beside the compute streams wait until somebody needs them.
  kOthers,   // They run ahead of the compute streams.
  kRandom,
};

// All streams of all ranks, and the one lock under which their work runs.
class Scheduler {
 public:
  Scheduler(Eagerness eagerness, uint64_t seed) : eagerness_(eagerness), random_(seed) {}

  struct Queue;
  struct Mark : backend::Event {
    Scheduler* scheduler = nullptr;
    Queue* queue = nullptr;
    int64_t position = 0;  // Done when so much of the queue has run.
    std::shared_ptr<std::chrono::steady_clock::time_point> time;
  };
  struct Item {
    std::function<void()> work;
    Queue* awaited = nullptr;  // Runs once `awaited` has come to `position`.
    int64_t position = 0;
  };
  struct Queue : backend::Stream {
    bool is_compute = false;
    std::deque<Item> items;
    int64_t pushed = 0, done = 0;
  };

  Queue& add_queue(bool is_compute) {
    const std::lock_guard lock(mutex_);
    queues_.push_back(std::make_unique<Queue>());
    queues_.back()->is_compute = is_compute;
    return *queues_.back();
  }
  void push(backend::Stream& stream, std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    push_locked(static_cast<Queue&>(stream), {.work = std::move(work)});
  }
  std::unique_ptr<backend::Event> record(backend::Stream& stream) {
    const std::lock_guard lock(mutex_);
    auto& queue = static_cast<Queue&>(stream);
    auto time = std::make_shared<std::chrono::steady_clock::time_point>();
    push_locked(queue, {.work = [time] { *time = std::chrono::steady_clock::now(); }});
    auto mark = std::make_unique<Mark>();
    mark->scheduler = this;
    mark->queue = &queue;
    mark->position = queue.pushed;
    mark->time = std::move(time);
    return mark;
  }
  void wait(backend::Stream& stream, const backend::Event& event) {
    const std::lock_guard lock(mutex_);
    const auto& mark = static_cast<const Mark&>(event);
    push_locked(static_cast<Queue&>(stream),
                {.work = [] {}, .awaited = mark.queue, .position = mark.position});
  }
  bool has_happened(const backend::Event& event) {
    const std::lock_guard lock(mutex_);
    const auto& mark = static_cast<const Mark&>(event);
    return mark.queue->done >= mark.position;
  }
  void synchronize(const backend::Event& event) {
    const auto& mark = static_cast<const Mark&>(event);
    run_until(*mark.queue, mark.position);
  }
  void synchronize(backend::Stream& stream) {
    auto& queue = static_cast<Queue&>(stream);
    int64_t position = 0;
    {
      const std::lock_guard lock(mutex_);
      position = queue.pushed;
    }
    run_until(queue, position);
  }

 private:
  static void push_locked(Queue& queue, Item item) {
    queue.items.push_back(std::move(item));
    ++queue.pushed;
  }
  static bool can_run(const Queue& queue) {
    if (queue.items.empty()) return false;
    const Item& item = queue.items.front();
    return item.awaited == nullptr || item.awaited->done >= item.position;
  }
  static void run_one(Queue& queue) {
    queue.items.front().work();
    queue.items.pop_front();
    ++queue.done;
  }

  void run_until(Queue& target, int64_t position) {
    const std::lock_guard lock(mutex_);
    while (target.done < position) {
      Queue* const next = eagerness_ == Eagerness::kRandom ? any_that_can_run() : choose(target);
      CHECK(next != nullptr, "the streams wait for each other");
      run_one(*next);
    }
  }
  Queue* any_that_can_run() {
    std::vector<Queue*> ready;
    for (const auto& queue : queues_) {
      if (can_run(*queue)) ready.push_back(queue.get());
    }
    return ready.empty() ? nullptr : ready[random_() % ready.size()];
  }
  // The eager kind first; the others only as far as the target needs them.
  Queue* choose(Queue& target) {
    for (const auto& queue : queues_) {
      const bool is_eager = queue->is_compute == (eagerness_ == Eagerness::kCompute);
      if (is_eager && can_run(*queue)) return queue.get();
    }
    Queue* needed = &target;
    for (size_t hops = 0; hops <= queues_.size(); ++hops) {
      if (can_run(*needed)) return needed;
      if (needed->items.empty()) return nullptr;
      needed = needed->items.front().awaited;
    }
    return any_that_can_run();
  }

  const Eagerness eagerness_;
  std::mutex mutex_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Queue>> queues_;
};

inline bool has_happened(const backend::Event& event) {
  return static_cast<const Scheduler::Mark&>(event).scheduler->has_happened(event);
}

class DeferredDevice final : public WrappedDevice {
 public:
  DeferredDevice(std::unique_ptr<backend::Device> device, std::shared_ptr<Scheduler> scheduler)
      : WrappedDevice(std::move(device)),
        scheduler_(std::move(scheduler)),
        compute_(scheduler_->add_queue(true)),
        copy_(scheduler_->add_queue(false)),
        communication_(scheduler_->add_queue(false)),
        side_(scheduler_->add_queue(false)) {}

  backend::Stream& compute_stream() override { return compute_; }
  backend::Stream& copy_stream() override { return copy_; }
  backend::Stream& communication_stream() override { return communication_; }
  backend::Stream& side_stream() override { return side_; }
  void copy(void* target, const void* source, int64_t byte_count,
            backend::Stream& stream) override {
    scheduler_->push(stream, [=, this] {
      device_->copy(target, source, byte_count, device_->compute_stream());
    });
  }
  std::unique_ptr<backend::Event> record(backend::Stream& stream) override {
    return scheduler_->record(stream);
  }
  void wait(backend::Stream& stream, const backend::Event& event) override {
    scheduler_->wait(stream, event);
  }
  void synchronize(backend::Stream& stream) override { scheduler_->synchronize(stream); }
  void synchronize(const backend::Event& event) override { scheduler_->synchronize(event); }
  double seconds_between(const backend::Event& begin, const backend::Event& end) override {
    const auto time = [](const backend::Event& event) {
      return *static_cast<const Scheduler::Mark&>(event).time;
    };
    return std::chrono::duration<double>(time(end) - time(begin)).count();
  }

 private:
  const std::shared_ptr<Scheduler> scheduler_;
  Scheduler::Queue &compute_, &copy_, &communication_, &side_;
};

class DeferredOps final : public backend::Ops {
 public:
  DeferredOps(std::unique_ptr<backend::Ops> ops, std::shared_ptr<Scheduler> scheduler)
      : ops_(std::move(ops)), scheduler_(std::move(scheduler)) {}

  using S = backend::Stream;
  void matmul(const backend::MatmulArgs& a, S& s) override { later(&backend::Ops::matmul, a, s); }
  void embedding_forward(const backend::EmbeddingForwardArgs& a, S& s) override {
    later(&backend::Ops::embedding_forward, a, s);
  }
  void embedding_backward(const backend::EmbeddingBackwardArgs& a, S& s) override {
    later(&backend::Ops::embedding_backward, a, s);
  }
  void rmsnorm_forward(const backend::RmsnormForwardArgs& a, S& s) override {
    later(&backend::Ops::rmsnorm_forward, a, s);
  }
  void rmsnorm_backward(const backend::RmsnormBackwardArgs& a, S& s) override {
    later(&backend::Ops::rmsnorm_backward, a, s);
  }
  void rope(const backend::RopeArgs& a, S& s) override { later(&backend::Ops::rope, a, s); }
  void attention_forward(const backend::AttentionForwardArgs& a, S& s) override {
    later(&backend::Ops::attention_forward, a, s);
  }
  void attention_backward(const backend::AttentionBackwardArgs& a, S& s) override {
    later(&backend::Ops::attention_backward, a, s);
  }
  void cache_append(const backend::CacheAppendArgs& a, S& s) override {
    later(&backend::Ops::cache_append, a, s);
  }
  void cache_attention(const backend::CacheAttentionArgs& a, S& s) override {
    later(&backend::Ops::cache_attention, a, s);
  }
  void swiglu_forward(const backend::SwigluForwardArgs& a, S& s) override {
    later(&backend::Ops::swiglu_forward, a, s);
  }
  void swiglu_backward(const backend::SwigluBackwardArgs& a, S& s) override {
    later(&backend::Ops::swiglu_backward, a, s);
  }
  void cross_entropy(const backend::CrossEntropyArgs& a, S& s) override {
    later(&backend::Ops::cross_entropy, a, s);
  }
  void sum(const backend::SumArgs& a, S& s) override { later(&backend::Ops::sum, a, s); }
  void sum_of_squares(const backend::SumOfSquaresArgs& a, S& s) override {
    later(&backend::Ops::sum_of_squares, a, s);
  }
  void clip_scale(const backend::ClipScaleArgs& a, S& s) override {
    later(&backend::Ops::clip_scale, a, s);
  }
  void adamw(const backend::AdamwArgs& a, S& s) override { later(&backend::Ops::adamw, a, s); }
  void sgd(const backend::SgdArgs& a, S& s) override { later(&backend::Ops::sgd, a, s); }
  void encode_int8(const backend::EncodeInt8Args& a, S& s) override {
    later(&backend::Ops::encode_int8, a, s);
  }
  void decode_int8(const backend::DecodeInt8Args& a, S& s) override {
    later(&backend::Ops::decode_int8, a, s);
  }
  void encode_int4(const backend::EncodeInt4Args& a, S& s) override {
    later(&backend::Ops::encode_int4, a, s);
  }
  void decode_int4(const backend::DecodeInt4Args& a, S& s) override {
    later(&backend::Ops::decode_int4, a, s);
  }
  void add(const backend::AddArgs& a, S& s) override { later(&backend::Ops::add, a, s); }
  void cast(const backend::CastArgs& a, S& s) override { later(&backend::Ops::cast, a, s); }
  void zero(const backend::Tensor& out, S& s) override {
    scheduler_->push(s, [this, out, &s] { ops_->zero(out, s); });
  }
  void sum_tensors(const backend::SumTensorsArgs& a, S& s) override {
    scheduler_->push(s, [this, out = a.out, in = std::vector(a.in.begin(), a.in.end()), &s] {
      ops_->sum_tensors({.out = out, .in = in}, s);
    });
  }

 private:
  template <class Args>
  void later(void (backend::Ops::*operation)(const Args&, backend::Stream&), const Args& args,
             backend::Stream& stream) {
    scheduler_->push(stream, [=, this, &stream] { (ops_.get()->*operation)(args, stream); });
  }

  const std::unique_ptr<backend::Ops> ops_;
  const std::shared_ptr<Scheduler> scheduler_;
};

inline std::vector<backend::Backend> make_deferred_backends(int ranks, Eagerness eagerness,
                                                            uint64_t seed = 1) {
  auto scheduler = std::make_shared<Scheduler>(eagerness, seed);
  auto backends = backend::make_cpu_backends({.ranks = ranks, .threads_per_rank = 1});
  std::vector<backend::InProcessRank> members;
  for (backend::Backend& backend : backends) {
    backend.ops = std::make_unique<DeferredOps>(std::move(backend.ops), scheduler);
    backend.device = std::make_unique<DeferredDevice>(std::move(backend.device), scheduler);
    members.push_back({backend.device.get(), backend.ops.get()});
  }
  auto communicators =
      backend::make_in_process_communicators(members, std::chrono::milliseconds(60'000));
  for (size_t rank = 0; rank < backends.size(); ++rank)
    backends[rank].communicator = std::move(communicators[rank]);
  return backends;
}

}  // namespace test
