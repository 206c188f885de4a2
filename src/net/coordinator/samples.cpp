#include "net/coordinator/samples.h"

#include "net/probe.h"

namespace net {

void SampleCounter::start(uint64_t heard) {
  count_ = started_at_ = heard;
  void_below_ = 0;
}

void SampleCounter::adopt(uint64_t heard) {
  probe<"samples are void since a newer state has come">(count_ > started_at_);
  if (count_ > started_at_) void_below_ = count_;
  count_ = started_at_ = std::max(count_, heard);
}

// Who heard more than we knew, and not from us, may hold what we have handed out again.
uint64_t SampleCounter::void_below(const MemberRecord& member, uint32_t term) const {
  probe<"who heard of more samples drops all">(member.samples > started_at_ && member.term != term);
  return member.samples > started_at_ && member.term != term ? kSamplesMax : void_below_;
}

base::Result<void> SampleCounter::grant(const MemberRecord& member, const NeedSamples& need,
                                        const Roster& roster, const Speaker& speaker, Turn turn) {
  probe<"samples are asked for too early">(!member.is_active());
  if (!member.is_active()) return {};
  if (need.count > kSamplesMax - count_) return base::Failure{"the run has no more samples"};
  const Samples samples{.first = count_, .count = need.count};
  count_ += need.count;
  speaker.send(member.link, MessageType::kSamples, encode(samples), turn);
  const Bytes told = news();
  for (const auto& [peer, other] : roster.all()) {
    if (peer != member.peer) speaker.send(other.link, MessageType::kSamples, told, turn);
  }
  return {};
}

}  // namespace net
