// Collectives between rank threads of one process. They meet, each shows the others where its
// tensors are, each computes its part by reading the others' memory, and they meet again so that
// nobody goes on while somebody still reads.
//
// One idea: the deadline holds for the first meeting only. Whoever came to it has nothing left to
// do but to move memory, so the second one ends by itself; and a rank that gives up never takes
// away memory that another still reads.
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>

#include "cpu/cpu_backend.h"

namespace cpu {

using backend::Stream;
using backend::Tensor;

namespace {

// What a rank shows to the others.
struct Offer {
  const char* operation = "";
  Tensor in, out;
};

// Where the ranks meet.
class Meeting {
 public:
  Meeting(int ranks, std::chrono::milliseconds timeout)
      : timeout_(timeout), offers_(size_t(ranks)) {}

  int rank_count() const { return int(offers_.size()); }
  const Offer& offer(int rank) const { return offers_[size_t(rank)]; }

  // Returns when all ranks have called it for the same operation. Throws when one did not within
  // the timeout, and from then on always.
  void begin(int rank, const Offer& mine) {
    if (rank_count() == 1) {
      offers_[0] = mine;
      return;
    }
    std::unique_lock lock(mutex_);
    if (failure_) throw base::resource_lost(*failure_, kHint);
    offers_[size_t(rank)] = mine;
    arrived_[size_t(rank)] = true;
    if (++arrived_count_ == rank_count()) return open();
    const int64_t my_meeting = meeting_;
    const bool done =
        changed_.wait_for(lock, timeout_, [&] { return meeting_ != my_meeting || failure_; });
    if (!done) fail(mine.operation);
    if (meeting_ == my_meeting) throw base::resource_lost(*failure_, kHint);
  }

  // Returns when all ranks have called it. REQUIRES: begin() returned.
  void end() {
    if (rank_count() == 1) return;
    std::unique_lock lock(mutex_);
    if (--inside_count_ == 0) {
      ++meeting_;
      changed_.notify_all();
      return;
    }
    const int64_t my_meeting = meeting_;
    changed_.wait(lock, [&] { return meeting_ != my_meeting; });
  }

 private:
  static constexpr const char* kHint = "The log of that rank says what it was doing.";

  // The last one came. REQUIRES: locked.
  void open() {
    for (const Offer& offer : offers_) {
      CHECK(std::string_view(offer.operation) == offers_[0].operation, "ranks met in {} and {}",
            offer.operation, offers_[0].operation);
      CHECK(offer.in.shape.element_count() == offers_[0].in.shape.element_count() &&
                offer.in.dtype == offers_[0].in.dtype,
            "ranks met in {} with different tensors", offer.operation);
    }
    inside_count_ = arrived_count_;
    arrived_count_ = 0;
    arrived_.assign(arrived_.size(), false);
    ++meeting_;
    changed_.notify_all();
  }

  // REQUIRES: locked.
  void fail(const char* operation) {
    std::string missing;
    for (size_t rank = 0; rank < arrived_.size(); ++rank) {
      if (!arrived_[rank])
        missing += fmt::format("{}{}", missing.empty() ? "rank " : ", rank ", rank);
    }
    failure_ =
        fmt::format("{}: {} did not arrive within {} ms", operation, missing, timeout_.count());
    changed_.notify_all();
  }

  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Offer> offers_;
  std::vector<bool> arrived_ = std::vector<bool>(offers_.size());
  int arrived_count_ = 0;
  int inside_count_ = 0;
  int64_t meeting_ = 0;  // Counts begins and ends.
  std::optional<std::string> failure_;
};

class CpuCommunicator final : public backend::Communicator {
 public:
  CpuCommunicator(std::shared_ptr<Meeting> meeting, int rank)
      : meeting_(std::move(meeting)), rank_(rank) {}

  int rank() const override { return rank_; }
  int rank_count() const override { return meeting_->rank_count(); }

  void all_gather(const Tensor& out, const Tensor& in, Stream&) override {
    CHECK(out.dtype == in.dtype && out.element_count() == in.element_count() * rank_count());
    meeting_->begin(rank_, {"all_gather", in, out});
    for (int source = 0; source < rank_count(); ++source) {
      copy(part(out, source, in.element_count()), meeting_->offer(source).in);
    }
    meeting_->end();
  }

  void reduce_scatter(const Tensor& out, const Tensor& in, Stream&) override {
    CHECK(in.element_count() == out.element_count() * rank_count());
    meeting_->begin(rank_, {"reduce_scatter", in, out});
    sum_into(out.as<float>(), rank_ * out.element_count(), out.element_count());
    meeting_->end();
  }

  // Every rank sums one part of the tensor, in the memory of rank 0, and copies it to all others;
  // only it touches that part.
  void all_reduce(const Tensor& data, Stream&) override {
    meeting_->begin(rank_, {"all_reduce", data, data});
    const int64_t even = base::div_ceil(data.element_count(), rank_count());
    const int64_t begin = std::min(data.element_count(), rank_ * even);
    const int64_t count = std::min(data.element_count() - begin, even);
    const Tensor sum = flat(meeting_->offer(0).in).slice(begin, {count});
    sum_into(sum.as<float>(), begin, count);
    for (int target = 1; target < rank_count(); ++target) {
      copy(flat(meeting_->offer(target).in).slice(begin, {count}), sum);
    }
    meeting_->end();
  }

  void broadcast(const Tensor& data, int root, Stream&) override {
    CHECK(root >= 0 && root < rank_count());
    meeting_->begin(rank_, {"broadcast", data, data});
    copy(data, meeting_->offer(root).in);
    meeting_->end();
  }

  void barrier() override {
    meeting_->begin(rank_, {"barrier", {}, {}});
    meeting_->end();
  }

 private:
  static Tensor flat(const Tensor& tensor) { return tensor.reshape({tensor.element_count()}); }
  static Tensor part(const Tensor& whole, int index, int64_t count) {
    return flat(whole).slice(index * count, {count});
  }
  static void copy(const Tensor& target, const Tensor& source) {
    if (target.data != source.data)
      std::memcpy(target.data, source.data, size_t(source.byte_count()));
  }

  // out[i] = the sum over the ranks, in their order, of in[begin + i]. `out` may be that place of
  // any rank.
  void sum_into(float* out, int64_t begin, int64_t count) const {
    constexpr int64_t kBlock = 1024;
    float sums[kBlock];
    for (int64_t block = 0; block < count; block += kBlock) {
      const int64_t block_count = std::min(kBlock, count - block);
      for (int source = 0; source < rank_count(); ++source) {
        const float* in = meeting_->offer(source).in.as<float>() + begin + block;
        if (source == 0) {
          std::copy_n(in, block_count, sums);
        } else {
          for (int64_t i = 0; i < block_count; ++i) sums[i] += in[i];
        }
      }
      std::copy_n(sums, block_count, out + block);
    }
  }

  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<backend::Communicator>> make_communicators(
    int ranks, std::chrono::milliseconds timeout) {
  auto meeting = std::make_shared<Meeting>(ranks, timeout);
  std::vector<std::unique_ptr<backend::Communicator>> communicators;
  for (int rank = 0; rank < ranks; ++rank)
    communicators.push_back(std::make_unique<CpuCommunicator>(meeting, rank));
  return communicators;
}

}  // namespace cpu
