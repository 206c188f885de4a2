#include "net/exchange/path.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kGain = 1.1;
// What a connection must carry per round trip for another one beside it. In a swarm that shares one
// slow line, where each gets more of it by being many, this ends the race early.
constexpr int64_t kLinkBytesMin = 128 * 1024;
// On shorter paths the 4 MiB that systems buffer for a connection are 6 Gbit/s, and lost packets
// are soon made good.
constexpr Duration kRoundTripMin = milliseconds(5);
constexpr Duration kSlotMin = milliseconds(100);
constexpr Duration kRunMin = milliseconds(1);
constexpr int64_t kSlotRoundTrips = 4;
// Chunks of several connections arrive together: a few of each, or the edges of a slot count for
// more than the gain that it should show.
constexpr int64_t kSlotChunks = 8;
constexpr int64_t kSlotChunksPerLink = 4;
// Together 12 round trips: a new connection needs about 8 to come from 14 KiB to 4 MiB per round
// trip.
constexpr size_t kFlatSlots = 3;
// A try that was in vain may have been bad luck, the first time.
constexpr Duration kPauseMin = seconds(10);
constexpr Duration kPauseMax = seconds(320);
// The other side may be in the middle of a sum, and so may we.
constexpr Duration kOtherWork = milliseconds(50);
constexpr int64_t kWindowMin = 1024 * 1024;

double to_seconds(Duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

void Path::on_connected(Duration time) {
  round_trip_ = std::min(round_trip_.value_or(time), time);
}

void Path::on_arrival(int64_t bytes, int64_t link_count, bool has_more, Instant now) {
  if (!slot_) {
    slot_ = Slot{.start = now};
    return;
  }
  slot_->bytes += bytes;
  ++slot_->chunk_count;
  slot_->had_more &= has_more && link_count >= link_count_;
  const int64_t chunks_min = std::max(kSlotChunks, kSlotChunksPerLink * link_count_);
  if (slot_->chunk_count < chunks_min || now - slot_->start < slot_time()) return;
  const double rate = double(slot_->bytes) / to_seconds(now - slot_->start);
  rate_ = std::max(rate, std::exchange(last_rate_, rate));
  const bool can_judge = slot_->had_more;
  slot_ = Slot{.start = now};
  if (can_judge) judge(rate, now);
}

void Path::on_carried(int64_t bytes, bool more_is_due, Instant now) {
  if (!run_) {
    if (more_is_due) run_ = Run{.start = now};
    return;
  }
  run_->bytes += bytes;
  if (more_is_due) return;
  carried_ = double(run_->bytes) / to_seconds(std::max<Duration>(now - run_->start, kRunMin));
  run_.reset();
}

Duration Path::slot_time() const {
  return std::max(kSlotMin, kSlotRoundTrips * round_trip_.value_or(Duration{}));
}

// Of what is flat the mean counts, not the best: the first seconds of a connection, before it loses
// a packet, can be far above what it keeps.
void Path::judge(double rate, Instant now) {
  if (rate > kGain * best_rate_) {
    best_rate_ = rate;
    flat_rates_.clear();
    return;
  }
  flat_rates_.push_back(rate);
  if (flat_rates_.size() < kFlatSlots) return;
  const double sum = std::accumulate(flat_rates_.begin(), flat_rates_.end(), 0.0);
  decide(sum / double(kFlatSlots), now);
  best_rate_ = 0;
  flat_rates_.clear();
}

void Path::decide(double rate, Instant now) {
  const auto trial = std::exchange(trial_, {});
  const Duration round_trip = round_trip_.value_or(Duration{});
  const double per_round_trip = round_trip < kRoundTripMin ? 0 : rate * to_seconds(round_trip);
  const auto per_link = int64_t(per_round_trip / double(link_count_));
  if (trial && rate <= kGain * trial->rate) {
    link_count_ = trial->link_count;
    return pause_trials(now);
  }
  if (trial) pause_ = {};
  if (per_link < kLinkBytesMin / 2) {
    link_count_ = std::max<int64_t>(link_count_ / 2, 1);
  } else if (per_link >= kLinkBytesMin && link_count_ < links_max_ && now >= no_trial_before_) {
    trial_ = Trial{.link_count = link_count_, .rate = rate};
    link_count_ = std::min(2 * link_count_, links_max_);
  }
}

void Path::on_refused(int64_t left, Instant now) {
  link_count_ = std::clamp<int64_t>(left, 1, link_count_);
  trial_.reset();
  best_rate_ = 0;
  flat_rates_.clear();
  pause_trials(now);
}

void Path::pause_trials(Instant now) {
  pause_ = std::clamp<Duration>(2 * pause_, kPauseMin, kPauseMax);
  no_trial_before_ = now + pause_;
}

std::optional<int64_t> Path::window_bytes() const {
  if (rate_ <= 0) return std::nullopt;
  const Duration delay = round_trip_.value_or(Duration{}) + kOtherWork;
  return std::max(kWindowMin, int64_t(2 * rate_ * to_seconds(delay)));
}

}  // namespace net
