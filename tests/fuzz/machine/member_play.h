// A member whose coordinator, peers and links do what a fuzzer decides: what they would do next,
// anything that can be said, or nonsense, while jobs end in any order and time jumps. Its trainer
// keeps the promises of net/member.h. What must hold:
//
//   - a version is reported as committed once, right after the one before, with results that have
//     the digest which it was committed with, and by whoever is active;
//   - the store is written only while the trainer lets it, and sums what it checked, in order;
//   - after Stopped, or having left, nothing is said, reported or dialled;
//   - what is out (links, jobs, queued bytes) is bounded (checked_outbox.h).
#pragma once

#include "fuzz/machine/choices.h"

namespace net {

void play_member(Choices& choices);

}  // namespace net
