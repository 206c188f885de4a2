// A fragment's pseudo-gradient, outer minus local parameters, in bytes that nobody changes any
// more: training goes on while they travel.
#pragma once

#include "outer/codec.h"
#include "outer/local_slices.h"

namespace outer {

// One payload per chunk (net/fragment_store.h), on all threads of the pool. Where a chunk cannot be
// encoded, because it is not finite or beyond what the codec knows, all are made zeros, `is_whole`
// is false, and the node must have no weight in the round. The trainer's thread.
struct Contribution {
  std::vector<net::Bytes> payloads;
  base::Digest root;  // FragmentStore::contribution_root()
  bool is_whole = true;
};
Contribution make_contribution(const FragmentRecord& record, const LocalSlices& local,
                               const Codec& codec);

// The encoded chunks one after the other, and back: throws bad_input where they do not fit.
// Payloads have room for what stands in front; only those of a contribution that is still to be
// sent have paths there.
std::vector<std::byte> join_payloads(const std::vector<net::Bytes>& payloads);
Contribution restore_contribution(const FragmentRecord& record, std::span<const std::byte> encoded,
                                  const Codec& codec);
std::vector<net::Bytes> split_payloads(const FragmentRecord& record,
                                       std::span<const std::byte> encoded, const Codec& codec);

}  // namespace outer
