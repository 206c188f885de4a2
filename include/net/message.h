// What peers say to each other. Two kinds of links:
//
//   control   every member to the coordinator: small messages only, so that heartbeats never queue
//   behind tensors. data      member to member, dialled by whoever wants something, or by whoever
//   cannot be dialled (Offer): Want goes one way, Chunk or Gone comes back. What is
//             wanted is named completely (kind, fragment, round, attempt, chunk), so that asking
//             again is harmless and only what is missing is asked again after a link was lost.
//
// A payload struct has encode() and decode(); decode is a pure function over bytes, with limits
// before every allocation, and a Failure for anything that is not exactly a message.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "net/keys.h"
#include "net/types.h"

namespace net {

enum class MessageType : uint16_t {
  // Control, member to coordinator.
  kHello = 1,   // Who I am and which state I have.
  kSynced = 2,  // My state is the one that CatchUp named.
  kHeartbeat = 3,
  kReady = 4,    // My inner steps for a fragment are done; or not any more (weight < 0).
  kDone = 5,     // I hold every result chunk of the round.
  kApplied = 6,  // My state after a commit.
  kLeave = 7,
  kNeedSamples = 8,
  kAudited = 9,    // I have made the sum of a chunk of the last round again.
  kMeasured = 10,  // What my ways to the others carry.
  // Control, coordinator to member.
  kWelcome = 16,
  kReject = 17,   // With a reason for the person who reads the log; the link is then closed.
  kCatchUp = 18,  // The state in force and who has it.
  kStart = 19,    // You are an active member; train from this step.
  kMembership = 20,
  kOpen = 21,
  kReown = 22,  // Some members are out of the round; their chunks have new owners.
  kCommit = 23,
  kAbort = 24,  // The round ends without a result; your Ready stands.
  kHeartbeatReply = 25,
  kNotice = 26,    // How we stand with it, and why: before a link is closed, or when it changes.
  kSamples = 27,   // A range of the run's data is yours; or how much of it has been handed out.
  kKeys = 28,      // Who may speak to you, in a run with a list of keys.
  kRedirect = 29,  // The run's coordinator is, or may be, there.
  kAudit = 30,     // Make the sum of a chunk of the last round again.
  kStandBy = 31,   // I do not coordinate the run, but may have to: your Hello is kept.
  // Data.
  kDataHello = 32,
  kWant = 33,
  kChunk = 34,
  kGone = 35,      // I do not have it and will not.
  kDialBack = 36,  // The coordinator asks a data port whose it is.
  kDialBackReply = 37,
  kOffer = 38,   // First on a link: you cannot dial me, so ask here.
  kInvite = 39,  // On such a link: so many of them would be used.
  // Control, coordinator to member.
  kVisits = 40,  // Whom to dial with an Offer: nobody can dial you.
};

// Stands in every frame; a receiver drops what is older than what it knows.
struct Authority {
  uint32_t term = 0;     // Rises when another coordinator takes over.
  uint64_t epoch = 0;    // Rises when the member list changes.
  uint64_t round = 0;    // The version of the fragment that the round makes; 0 outside rounds.
  uint32_t attempt = 0;  // Rises with every Reown.
  uint32_t fragment = 0;
  uint32_t chunk = 0;  // Of Want, Chunk, Gone.
  bool operator==(const Authority&) const = default;
};

struct Message {
  MessageType type = MessageType::kHello;
  uint64_t run = 0;         // Hash of the run's name: links of other runs are refused.
  PeerId source = kNobody;  // kNobody: the coordinator, or a member without a number yet.
  Authority authority;
  Bytes payload;  // Never null; may be empty.
};

// The committed state of a fragment: how many rounds made it, and the digest of outer parameters
// and momentum.
struct FragmentState {
  uint64_t version = 0;
  base::Digest digest;  // Zero: not known yet.
  bool operator==(const FragmentState&) const = default;
};

// In place of a version: there is no usable state, its blocks are being fetched.
inline constexpr uint64_t kNoVersion = ~uint64_t{0};

// Who decides together what is committed.
struct Electorate {
  std::vector<uint64_t> voters;  // Node keys.
  // The voter that makes half of them enough. 0: the coordinator that made the list does.
  uint64_t tie_breaker = 0;
  bool operator==(const Electorate&) const = default;
};
inline constexpr int64_t kElectoratesMax = 2;

// A round of which the sender holds every result chunk, and has said so, but whose end it has not
// heard; or the one that made its state, if it was there.
struct HeldRound {
  uint32_t fragment = 0;
  uint32_t term = 0;  // In which it was opened, and with which attempt it was complete.
  uint32_t attempt = 0;
  uint64_t round = 0;
  base::Digest results;  // As in Done.
  uint64_t step = 0;     // Of its Open.
  bool operator==(const HeldRound&) const = default;
};

struct Hello {
  uint32_t protocol = 0;  // kProtocolVersion
  uint64_t node_key = 0;  // Random, kept in the run directory: the same node after a restart.
  std::string node_name;  // For people; at most 64 bytes.
  base::Digest config;    // Of everything that must be equal on all nodes.
  // Where other members reach my data port. An empty host: as the coordinator sees me. Port 0:
  // there is none, I only watch.
  Endpoint listen;
  uint64_t step = 0;     // Of the last commit that is in `states`.
  uint64_t samples = 0;  // Of the run's data, that are handed out as far as we have heard.
  std::vector<FragmentState> states;
  // The last list of active members that it was in: of which coordinator's term, its epoch, and how
  // many they were. 0: none.
  uint32_t last_term = 0;
  uint64_t last_epoch = 0;
  uint32_t last_member_count = 0;
  std::vector<Electorate> last_electorates;  // As in Membership.
  // It was in that list since it was started last. If not, it knows of it from its disk, and what
  // it had promised in it is forgotten.
  bool remembers = true;
  // Whose term it is that stands in this frame (Welcome::coordinator); 0: nobody's.
  uint64_t coordinator = 0;
  bool is_home = true;          // It dialled the run's configured coordinator.
  bool was_reachable = true;    // False: the coordinator before could not dial its data port.
  std::vector<HeldRound> held;  // At most kHeldRoundsMax.
};
inline constexpr int64_t kHeldRoundsMax = 256;
struct Synced {
  std::vector<FragmentState> states;
};
struct Heartbeat {
  uint64_t step = 0;
  float loss = 0;         // Of the last inner step.
  uint64_t progress = 0;  // Chunks of rounds that came or were summed here. Steps do not count.
  // Bit i of each is about peer i. Contributions depend on nothing but their sender; results depend
  // on the contributions that their owner still lacks.
  uint64_t owes_contribution = 0;
  uint64_t owes_result = 0;
  uint64_t silent = 0;       // It owes something, and nothing has come since the last heartbeat.
  uint64_t unreachable = 0;  // It could not be dialled, the last time.
  uint32_t lacks = 0;        // Blocks and results that are still wanted to catch up.
};
struct Ready {
  // Tokens since this fragment's last commit. Negative: withdraws, also from an open round.
  int64_t weight_tokens = 0;
  uint64_t step = 0;
  base::Digest contribution;  // Its root: FragmentStore::contribution_root().
};
struct Done {
  base::Digest results;
};  // SHA-256 over the result chunks' bytes in order.
struct Applied {
  base::Digest digest;
};
// SHA-256 of the payload of a result: as its owner published it, and as its parts make it; zero if
// they cannot be had, because of these contributors (bits, by index into Open::contributors).
struct Audited {
  base::Digest published, remade;
  uint64_t withheld = 0;
};
// What a member has seen of its ways to others while it fetched from them.
struct MeasuredWay {
  PeerId peer = kNobody;
  uint32_t round_trip_us = 0;     // It took to connect; 0: not known.
  uint64_t bytes_per_second = 0;  // Came from there; 0: not known.
};
struct Measured {
  std::vector<MeasuredWay> ways;
};
struct AuditOrder {};  // Of kAudit: authority names the chunk.
struct Leave {
  std::string reason;
};  // kDoneReason: all steps are done; anything else is for people.
inline constexpr const char* kDoneReason = "done";
// The training data of a run is one endless stream of samples. Nobody reads one that was handed out
// to somebody else.
struct NeedSamples {
  uint64_t count = 0;  // From 1 to kSamplesAskedMax.
};
inline constexpr uint64_t kSamplesAskedMax = uint64_t{1} << 20;
inline constexpr uint64_t kSamplesMax = uint64_t{1} << 48;  // Of a run.

struct Welcome {
  PeerId peer = kNobody;
  uint32_t heartbeat_interval_ms = 0;
  uint32_t dead_after_ms = 0;
  uint64_t coordinator = 0;  // Which one it is, of those of the same term. Never 0.
};
// Of a coordinator that cannot begin yet; then again and again, as a sign of life.
struct StandBy {
  uint64_t coordinator = 0;  // Welcome::coordinator
};
struct Redirect {
  Endpoint coordinator;
  uint64_t node_key = 0;  // As in Donor; 0: not known.
  bool operator==(const Redirect&) const = default;
};
struct Reject {
  std::string reason;
  bool restart_makes_sense = false;  // True: started again, the node may be taken.
  // Where the configurations differ: what all nodes of the run must have, as one line of JSON.
  std::string shared_config;
};
struct Notice {
  bool contributes = true;  // False: it receives results, and its own work waits.
  std::string reason;
};
struct Donor {
  PeerId peer = kNobody;
  Endpoint data;          // An empty host: it cannot be dialled, and dials the others (Offer).
  uint64_t node_key = 0;  // Which whoever answers there must have proved, on secured links.
  bool operator==(const Donor&) const = default;
};
// All at once: who is not named any more is not to be dialled any more.
struct Visits {
  std::vector<Donor> peers;
};
struct CatchUp {
  std::vector<FragmentState> states;  // A zero digest: not known yet, nothing to compare.
  std::vector<Donor> donors;
  uint64_t step = 0;  // Of the last commit in the states.
};
struct Start {
  uint64_t step = 0;
  // Whoever holds samples below this number must drop them: they may be somebody else's as well.
  uint64_t samples_void_below = 0;
};
// Samples [first, first + count) are yours. All before first + count are handed out; others hear of
// that as well, with a count of 0, and so does whoever must catch up.
struct Samples {
  uint64_t first = 0;
  uint64_t count = 0;
};
// An active member.
struct Seat {
  PeerId peer = kNobody;
  uint64_t node_key = 0;
  Endpoint data;
  bool is_reachable = false;  // There.
  bool operator==(const Seat&) const = default;
};
struct Membership {
  std::vector<Seat> members;
  // A commit needs a quorum of each: the last one that is settled, and one that shall be next.
  std::vector<Electorate> electorates;
  bool operator==(const Membership&) const = default;
};
struct Keys {
  std::vector<NodeId> allowed;  // At most kAllowedKeysMax.
};

struct Contributor {
  PeerId peer = kNobody;
  int64_t weight_tokens = 0;
  Endpoint data;              // As in Donor. Who cannot be dialled owns no chunk.
  uint64_t node_key = 0;      // As in Donor.
  base::Digest contribution;  // As in its Ready.
};
// How a round's chunks come together: net/exchange/plan.h.
enum class PlanKind : uint8_t { kDirect = 0, kTwoLevel = 1, kRing = 2 };
const char* name_of(PlanKind kind);
struct Open {
  std::vector<Contributor> contributors;  // By peer; weights > 0, or all 0.
  std::vector<uint8_t> owners;            // Per chunk: index into contributors.
  uint64_t step = 0;                      // The global step of this synchronisation.
  PlanKind plan = PlanKind::kDirect;
  // By contributor: of two-level its region, numbered as they first occur; of a ring its place in
  // it. Direct: none.
  std::vector<uint8_t> places;
  uint32_t estimated_ms = 0;  // How long it should take; 0: nobody knows.
};
struct Reown {
  std::vector<PeerId> excluded;  // All so far.
  struct Move {
    uint32_t chunk = 0;
    uint8_t owner = 0;
  };
  std::vector<Move> moves;  // Earlier results of these chunks are void.
};
struct Commit {
  base::Digest results;
  uint64_t step = 0;
};

struct DataHello {
  PeerId peer = kNobody;
};
struct Offer {
  PeerId peer = kNobody;
  uint32_t round_trip_us = 0;  // How long it took to connect.
};
struct Invite {
  uint32_t links = 1;  // At most kOfferedLinksMax.
};
inline constexpr uint32_t kOfferedLinksMax = 16;
enum class WantKind : uint8_t {
  kContribution = 1,
  kResult = 2,
  kState = 3,    // authority.round = 0, chunk = block.
  kPast = 4,     // What a committed round did to a chunk; authority.term and attempt = 0.
  kDigests = 5,  // Those that the digest of the state of version authority.round is made of.
  kProof = 6,    // A contribution of the last committed round: who sums must not know of it before.
  kSubtotal = 7,  // The sum of what a contributor inside a chunk's tree was brought, and its own.
};
// What is wanted for a round that is open.
constexpr bool is_of_round(WantKind kind) {
  return kind == WantKind::kContribution || kind == WantKind::kResult ||
         kind == WantKind::kSubtotal;
}
// What several may have for one chunk, so that its name is not whole without whose it is.
constexpr bool is_of_contributor(WantKind kind) {
  return kind == WantKind::kContribution || kind == WantKind::kProof || kind == WantKind::kSubtotal;
}
// What is wanted to catch up.
constexpr bool is_for_catching_up(WantKind kind) {
  return kind >= WantKind::kState && kind <= WantKind::kDigests;
}
struct Want {
  WantKind kind = WantKind::kContribution;
};
// Payload of kChunk: one byte WantKind, then for kContribution and kProof: the path to the root,
// the encoded chunk; for kResult and kSubtotal: bit mask of the contributors that are in it (u64,
// by index into Open::contributors), of those that were judged out, their weight (i64), the encoded
// chunk; for kState: version (u64), the block; for kPast: the round's step (u64), whether the chunk
// was refused (u8), and if not, the encoded chunk; for kDigests: the digests.
struct Gone {
  WantKind kind = WantKind::kContribution;
};
struct DialBack {
  uint64_t nonce = 0;
};
struct DialBackReply {
  uint64_t proof = 0;  // dial_back_proof(node key, nonce)
};
// Only who has the node key can say it, and it does not tell the key: the first 8 bytes of the
// SHA-256 of both.
uint64_t dial_back_proof(uint64_t node_key, uint64_t nonce);

inline constexpr uint32_t kProtocolVersion = 7;
inline constexpr int64_t kControlBytesMax = 64 * 1024;
inline constexpr int64_t kDataBytesMax = 4 * 1024 * 1024 + 64 * 1024;

// One pair per struct above.
template <class T>
Bytes encode(const T& payload);
template <class T>
base::Result<T> decode(std::span<const std::byte> bytes);

}  // namespace net
