// Each rank shows the others where its tensors are, computes its part by reading their memory, and
// goes on when nobody reads its own any more. On a device with streams the waiting is the streams':
// a rank's stream waits for an event in the others' before it reads, and for another one before
// what comes next may overwrite what they read.
#include <array>
#include <fmt/format.h>

#include "backend/in_process.h"
#include "backend/meeting.h"
#include "base/math.h"

namespace backend {
namespace {

// What a rank shows to the others, from the arrival of all until they have left.
struct Offer {
  Tensor data;
  std::unique_ptr<Event> ready;  // `data` is there.
  // All its reading is over. Two, used in turn: when a rank makes a new one, another may still be
  // about to wait for the last one.
  std::array<std::unique_ptr<Event>, 2> done;
};

struct Shared {
  Shared(int ranks, std::chrono::milliseconds timeout)
      : meeting(ranks, timeout), offers(size_t(ranks)) {}
  Meeting meeting;
  std::vector<Offer> offers;
};

class InProcessCommunicator final : public Communicator {
 public:
  InProcessCommunicator(std::shared_ptr<Shared> shared, int rank, const InProcessRank& mine)
      : shared_(std::move(shared)), rank_(rank), device_(*mine.device), ops_(*mine.ops) {}

  int rank() const override { return rank_; }
  int rank_count() const override { return shared_->meeting.rank_count(); }

  void all_gather(const Tensor& out, const Tensor& in, Stream& stream) override {
    CHECK(out.dtype == in.dtype && out.element_count() == in.element_count() * rank_count());
    collective("all_gather", in, stream, [&] {
      for (int source = 0; source < rank_count(); ++source)
        copy(part(out, source, in.element_count()), data_of(source), stream);
    });
  }

  void reduce_scatter(const Tensor& out, const Tensor& in, Stream& stream) override {
    CHECK(in.element_count() == out.element_count() * rank_count());
    collective("reduce_scatter", in, stream,
               [&] { sum_part(out, rank_ * out.element_count(), stream); });
  }

  // Every rank sums one part of the tensor, in the memory of rank 0, and copies it to all others;
  // only it touches that part.
  void all_reduce(const Tensor& data, Stream& stream) override {
    collective("all_reduce", data, stream, [&] {
      const int64_t even = base::div_ceil(data.element_count(), rank_count());
      const int64_t begin = std::min(data.element_count(), rank_ * even);
      const int64_t count = std::min(data.element_count() - begin, even);
      if (count == 0) return;
      const Tensor sum = flat(data_of(0)).slice(begin, {count});
      sum_part(sum, begin, stream);
      for (int target = 1; target < rank_count(); ++target)
        copy(flat(data_of(target)).slice(begin, {count}), sum, stream);
    });
  }

  void broadcast(const Tensor& data, int root, Stream& stream) override {
    CHECK(root >= 0 && root < rank_count());
    collective("broadcast", data, stream, [&] { copy(data, data_of(root), stream); });
  }

  void barrier() override {
    shared_->meeting.arrive(rank_, {.operation = "barrier"});
    shared_->meeting.leave(rank_);
  }

  void abort(const std::string& reason) override { shared_->meeting.abort(reason); }
  void check() override { shared_->meeting.check(); }

 private:
  template <class Body>
  void collective(const char* operation, const Tensor& data, Stream& stream, const Body& body) {
    Offer& mine = shared_->offers[size_t(rank_)];
    std::unique_ptr<Event>& done = mine.done[size_t(count_++ % 2)];
    mine.data = data;
    mine.ready = device_.record(stream);
    shared_->meeting.arrive(rank_, {operation, data.element_count(), data.dtype});
    try {
      for (const Offer& other : shared_->offers) device_.wait(stream, *other.ready);
      body();
      done = device_.record(stream);
    } catch (const std::exception& error) {
      shared_->meeting.leave_failed(rank_, error.what());
      throw;
    }
    shared_->meeting.leave(rank_);
    const size_t turn = size_t((count_ - 1) % 2);
    for (const Offer& other : shared_->offers) device_.wait(stream, *other.done[turn]);
  }

  const Tensor& data_of(int rank) const { return shared_->offers[size_t(rank)].data; }
  static Tensor flat(const Tensor& tensor) { return tensor.reshape({tensor.element_count()}); }
  static Tensor part(const Tensor& whole, int index, int64_t count) {
    return flat(whole).slice(index * count, {count});
  }
  void copy(const Tensor& target, const Tensor& source, Stream& stream) {
    if (target.data != source.data)
      device_.copy(target.data, source.data, source.byte_count(), stream);
  }

  // out = the sum over the ranks, in their order, of elements [begin, begin + count of out).
  void sum_part(const Tensor& out, int64_t begin, Stream& stream) {
    std::array<Tensor, kRanksMax> parts;
    for (int source = 0; source < rank_count(); ++source)
      parts[size_t(source)] = flat(data_of(source)).slice(begin, {out.element_count()});
    ops_.sum_tensors(
        {.out = flat(out), .in = std::span<const Tensor>(parts).first(size_t(rank_count()))},
        stream);
  }

  const std::shared_ptr<Shared> shared_;
  const int rank_;
  Device& device_;
  Ops& ops_;
  int64_t count_ = 0;  // Of collectives so far; the same on all ranks.
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_in_process_communicators(
    const std::vector<InProcessRank>& ranks, std::chrono::milliseconds timeout) {
  auto shared = std::make_shared<Shared>(int(ranks.size()), timeout);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (size_t rank = 0; rank < ranks.size(); ++rank)
    communicators.push_back(
        std::make_unique<InProcessCommunicator>(shared, int(rank), ranks[rank]));
  return communicators;
}

}  // namespace backend
