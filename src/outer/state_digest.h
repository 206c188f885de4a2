// Names the state of a fragment. Fixed pieces of 1 MiB are hashed by themselves, so that all cores
// help, and the digest is the hash of (version, fragment index, digests of the pieces of the
// parameters, of the momentum).
#pragma once

#include <cstdint>
#include <span>

#include "base/hash.h"
#include "base/thread.h"

namespace outer {

struct StateView {
  uint64_t version = 0;
  int64_t fragment = 0;
  std::span<const float> parameters;
  std::span<const float> momentum;
};
base::Digest state_digest(const StateView& state, base::ThreadPool& pool);

}  // namespace outer
