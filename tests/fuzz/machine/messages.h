// Messages that a fuzzer makes up: well-formed ones of every type, with numbers that mean something
// in a run of a few members, and mangled ones.
#pragma once

#include <vector>

#include "fuzz/machine/choices.h"
#include "net/message.h"

namespace net {

// What a small run is made of.
inline constexpr uint32_t kFuzzFragments = 2;
inline constexpr int64_t kFuzzChunks = 3;
inline constexpr int64_t kFuzzBlocks = 3;

// Any plan that can be, for whoever contributes.
void give_plan(Open& open, Choices& choices);
base::Digest digest_of(uint64_t number);
Endpoint data_address(PeerId peer);
base::Digest some_digest(Choices& choices);
Authority some_authority(Choices& choices);
// Decodes as what `type` says, but for chunks: their bytes may be anything.
Bytes some_payload(MessageType type, Choices& choices);
Bytes mangled(const Bytes& payload, Choices& choices);

}  // namespace net
