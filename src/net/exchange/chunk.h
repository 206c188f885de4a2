// What travels on data links: the complete name of a chunk, and what stands before its bytes.
//
// A name holds everything that makes one chunk different from another, so an answer that comes late
// can never be taken for something else: it has a name that nobody waits for any more.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "net/exchange/plan.h"
#include "net/fragment_store.h"
#include "net/message.h"

namespace net {

struct ChunkName {
  WantKind kind = WantKind::kContribution;
  uint32_t fragment = 0;
  uint32_t term = 0;     // Zero, as attempt, where it is wanted to catch up.
  uint64_t round = 0;    // Zero for blocks of the state.
  uint32_t attempt = 0;  // The one that gave the chunk its owner.
  uint32_t chunk = 0;    // Or block.
  PeerId contributor =
      kNobody;  // Of a contribution that is wanted; it does not travel, the provider is it.
  auto operator<=>(const ChunkName&) const = default;
};
ChunkName chunk_name(WantKind kind, const Authority& authority);
Authority authority_of(const ChunkName& name, uint64_t epoch);

// What a provider says to a name.
struct Answer {
  enum class Kind { kChunk, kNotYet, kGone };
  Kind kind = Kind::kGone;
  Bytes payload;  // Of kChunk.
};
inline Answer not_yet() {
  return {.kind = Answer::Kind::kNotYet};
}
inline Answer gone() {
  return {.kind = Answer::Kind::kGone};
}

// The payload of a Chunk message: the kind in one byte, a few numbers that depend on it, the bytes.
// That of a contribution is begun by new_contribution() (net/fragment_store.h).
inline constexpr int64_t kResultOffset = 1 + 8 + 8 + 8;
inline constexpr int64_t kStateOffset = 1 + 8;
inline constexpr int64_t kPastOffset = 1 + 8 + 1;
inline constexpr int64_t kDigestsOffset = 1;

struct ResultHeader {                // Of a subtotal as well.
  ContributorMask contributors = 0;  // Whose parts are in the sum.
  ContributorMask judged_out = 0;  // Whose parts were there and have no weight, as they would have
                                   // spoiled it.
  int64_t weight_tokens = 0;       // The sum of the contributors' weights: the divisor.
};

// Of a result or a subtotal.
Bytes result_payload(const ResultHeader& header, std::span<const std::byte> encoded,
                     WantKind kind = WantKind::kResult);
// Of a contribution on its own.
ResultHeader header_of(int64_t index, const Contributor& contributor);
Bytes state_payload(uint64_t version, std::span<const std::byte> block);
Bytes past_payload(const FragmentStore::PastChunk& past);
Bytes digests_payload(std::span<const std::byte> digests);

// The kind of a Chunk, Gone or Want: its first byte.
base::Result<WantKind> read_kind(std::span<const std::byte> payload);
base::Result<ResultHeader> read_result_header(std::span<const std::byte> payload);
base::Result<uint64_t> read_state_version(std::span<const std::byte> payload);
// It shares the payload.
base::Result<FragmentStore::PastChunk> read_past(const Bytes& payload);

}  // namespace net
