#include "fuzz/machine/checked_outbox.h"

#include <algorithm>

#include "base/error.h"
#include "net/wire/frame.h"

namespace net {
namespace {

// A handful of controls, and less than a chunk more than a chunk sender may queue.
constexpr int64_t kLinkBytesMax = 64 * 1024 * 1024;

template <class T>
void check(std::span<const std::byte> bytes) {
  CHECK(decode<T>(bytes).ok(), "{}", decode<T>(bytes).reason());
}

void check_decodes(const Message& message) {
  const std::span<const std::byte> bytes = *message.payload;
  switch (message.type) {
    case MessageType::kHello:
      return check<Hello>(bytes);
    case MessageType::kSynced:
      return check<Synced>(bytes);
    case MessageType::kHeartbeat:
      return check<Heartbeat>(bytes);
    case MessageType::kReady:
      return check<Ready>(bytes);
    case MessageType::kDone:
      return check<Done>(bytes);
    case MessageType::kApplied:
      return check<Applied>(bytes);
    case MessageType::kLeave:
      return check<Leave>(bytes);
    case MessageType::kNeedSamples:
      return check<NeedSamples>(bytes);
    case MessageType::kWelcome:
      return check<Welcome>(bytes);
    case MessageType::kReject:
      return check<Reject>(bytes);
    case MessageType::kCatchUp:
      return check<CatchUp>(bytes);
    case MessageType::kStart:
      return check<Start>(bytes);
    case MessageType::kMembership:
      return check<Membership>(bytes);
    case MessageType::kOpen:
      return check<Open>(bytes);
    case MessageType::kReown:
      return check<Reown>(bytes);
    case MessageType::kCommit:
      return check<Commit>(bytes);
    case MessageType::kNotice:
      return check<Notice>(bytes);
    case MessageType::kSamples:
      return check<Samples>(bytes);
    case MessageType::kDataHello:
      return check<DataHello>(bytes);
    case MessageType::kOffer:
      return check<Offer>(bytes);
    case MessageType::kInvite:
      return check<Invite>(bytes);
    case MessageType::kVisits:
      return check<Visits>(bytes);
    case MessageType::kWant:
      return check<Want>(bytes);
    case MessageType::kGone:
      return check<Gone>(bytes);
    default:
      return;
  }
}

}  // namespace

LinkId CheckedOutbox::connect(const Endpoint& endpoint) {
  links_[++last_link_] = {.dialled = endpoint};
  const auto dialled =
      std::ranges::count_if(links_, [](const auto& link) { return link.second.dialled.port != 0; });
  CHECK(dialled <= dialled_max_, "{} links are dialled", dialled);
  return last_link_;
}

void CheckedOutbox::send(LinkId id, Message message) {
  CHECK(!closed_.contains(id), "message {} on a link that the machine closed", int(message.type));
  if (!links_.contains(id)) return;
  Link& link = links_.at(id);
  const bool is_chunk = message.type == MessageType::kChunk;
  CHECK(!is_chunk || link.queued < kQueuedBytesMax, "a chunk behind {} bytes", link.queued);
  CHECK(message.payload != nullptr);
  const auto bytes = int64_t(message.payload->size());
  CHECK(bytes <= (is_chunk ? kDataBytesMax : kControlBytesMax), "{} bytes", bytes);
  check_decodes(message);
  link.queued += kFrameHeaderBytes + bytes;
  link.was_above |= link.queued > kQueuedBytesMax;
  CHECK(link.queued <= kLinkBytesMax, "{} bytes wait", link.queued);
  if (on_send) on_send(id, message);
}

void CheckedOutbox::close(LinkId link) {
  CHECK(closed_.insert(link).second, "a link is closed twice");
  links_.erase(link);
}

int64_t CheckedOutbox::queued_bytes(LinkId link) const {
  const auto found = links_.find(link);
  return found == links_.end() ? 0 : found->second.queued;
}

int64_t CheckedOutbox::all_queued_bytes() const {
  int64_t all = 0;
  for (const auto& [id, link] : links_) all += link.queued;
  return all;
}

void CheckedOutbox::start(Job job) {
  jobs_.push_back(std::move(job));
  CHECK(int64_t(jobs_.size()) <= jobs_max_, "{} jobs", jobs_.size());
}

LinkId CheckedOutbox::accept() {
  links_[++last_link_] = {.dialled = {}, .is_open = true};
  return last_link_;
}

bool CheckedOutbox::drain(LinkId id) {
  Link& link = links_.at(id);
  link.queued = 0;
  return std::exchange(link.was_above, false);
}

Job CheckedOutbox::take_job(size_t index) {
  Job job = std::move(jobs_[index]);
  jobs_.erase(jobs_.begin() + ptrdiff_t(index));
  return job;
}

}  // namespace net
