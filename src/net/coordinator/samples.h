// The run's training data as the coordinator sees it: a number that rises. Which member got which
// range is not remembered: what a lost member did not train on is left out of this pass over the
// data.
#pragma once

#include "net/coordinator/roster.h"
#include "net/coordinator/speaker.h"

namespace net {

class SampleCounter {
 public:
  uint64_t count() const { return count_; }  // Handed out so far.
  // The run starts where those who hold its state have heard that it was.
  void start(uint64_t heard);
  // A newer state is in force, of a member that has heard of so many. What was handed out here
  // until now, without knowing of that state, may have been trained on for it.
  void adopt(uint64_t heard);
  // Below which number an active member's samples are void.
  uint64_t void_below(const MemberRecord& member, uint32_t term) const;

  // Gives an active member the next samples and tells all others how far that is: whoever has the
  // state, or is fetching it, also knows what was handed out for it, should we be gone. A member
  // that is not active any more asked too early and will ask again.
  Bytes news() const { return encode(Samples{.first = count_}); }
  base::Result<void> grant(const MemberRecord& member, const NeedSamples& need,
                           const Roster& roster, const Speaker& speaker, Turn turn);

 private:
  uint64_t count_ = 0;
  uint64_t started_at_ = 0;  // From there on it was us who handed out.
  uint64_t void_below_ = 0;
};

}  // namespace net
