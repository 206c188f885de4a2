// A coordinator whose members say what a fuzzer decides: what a member would say next, anything
// that can be said, or nonsense, while links come and go and time jumps. What must hold is in
// told_by_coordinator.h.
#pragma once

#include "fuzz/machine/choices.h"

namespace net {

void play_coordinator(Choices& choices);

}  // namespace net
