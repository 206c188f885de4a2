#include "net/transport/held_line.h"

#include <algorithm>

#include "net/wire/frame.h"

namespace net {
namespace {

int64_t bytes_of(const HeldLine::Parcel& parcel) {
  const auto* message = std::get_if<Message>(&parcel.what);
  return message == nullptr ? 0 : kFrameHeaderBytes + int64_t(message->payload->size());
}

}  // namespace

void HeldLine::put(Parcel parcel, Instant now) {
  const int64_t bytes = bytes_of(parcel);
  queued_bytes_ += bytes;
  waiting_[parcel.link].push_back({.parcel = std::move(parcel), .bytes = bytes, .since = now});
}

bool HeldLine::goes_at_once(const Waiting& waiting) const {
  const auto* message = std::get_if<Message>(&waiting.parcel.what);
  return holds_ == Holds::kChunks && (!message || message->type != MessageType::kChunk);
}

// Whose turn it is; the end: nobody's yet.
HeldLine::Queues::iterator HeldLine::next_queue(Instant now) {
  const auto urgent = std::ranges::find_if(
      waiting_, [&](const auto& queue) { return goes_at_once(queue.second.front()); });
  if (urgent != waiting_.end() || waiting_.empty()) return urgent;
  if (free_at_ > now) return waiting_.end();
  auto next = waiting_.upper_bound(served_last_);
  if (next == waiting_.end()) next = waiting_.begin();
  served_last_ = next->first;
  return next;
}

// The line may have become free some time ago: what waited then has gone on it then.
void HeldLine::put_on_line(Instant now) {
  for (auto next = next_queue(now); next != waiting_.end(); next = next_queue(now)) {
    Waiting first = std::move(next->second.front());
    next->second.pop_front();
    if (next->second.empty()) waiting_.erase(next);
    queued_bytes_ -= first.bytes;
    const bool is_urgent = goes_at_once(first);
    const double seconds = bytes_per_second_ > 0 ? double(first.bytes) / bytes_per_second_ : 0;
    const Instant begins = std::max(free_at_, first.since);
    free_at_ = begins + Duration(int64_t(seconds * 1e9));
    // What is let go must still pass a real line; what is rehearsed has passed it then.
    const Instant through = is_urgent ? first.since : begins;
    sent_.push_back({.parcel = std::move(first.parcel),
                     .arrives = holds_ == Holds::kChunks ? through : free_at_ + delay_});
  }
}

std::optional<HeldLine::Parcel> HeldLine::take(Instant now) {
  put_on_line(now);
  if (sent_.empty() || sent_.front().arrives > now) return std::nullopt;
  Parcel parcel = std::move(sent_.front().parcel);
  sent_.pop_front();
  return parcel;
}

std::optional<Instant> HeldLine::next() const {
  std::optional<Instant> next;
  if (!waiting_.empty()) next = free_at_;
  if (!sent_.empty()) next = std::min(next.value_or(sent_.front().arrives), sent_.front().arrives);
  return next;
}

int64_t HeldLine::queued_bytes(LinkId link) const {
  const auto found = waiting_.find(link);
  int64_t sum = 0;
  if (found == waiting_.end()) return sum;
  for (const Waiting& waiting : found->second) sum += waiting.bytes;
  return sum;
}

void HeldLine::forget(LinkId link) {
  queued_bytes_ -= queued_bytes(link);
  waiting_.erase(link);
  std::erase_if(sent_, [&](const Sent& sent) { return sent.parcel.link == link; });
}

}  // namespace net
