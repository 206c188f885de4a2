#include "net/exchange/chunk.h"

#include <algorithm>

#include "net/exchange/hash_tree.h"
#include "net/wire/wire.h"

namespace net {
namespace {

Bytes join(std::vector<std::byte> header, std::span<const std::byte> bytes) {
  auto payload = std::make_shared<std::vector<std::byte>>(std::move(header));
  payload->insert(payload->end(), bytes.begin(), bytes.end());
  return payload;
}

}  // namespace

ChunkName chunk_name(WantKind kind, const Authority& authority) {
  return {.kind = kind,
          .fragment = authority.fragment,
          .term = authority.term,
          .round = authority.round,
          .attempt = authority.attempt,
          .chunk = authority.chunk};
}

Authority authority_of(const ChunkName& name, uint64_t epoch) {
  return {.term = name.term,
          .epoch = epoch,
          .round = name.round,
          .attempt = name.attempt,
          .fragment = name.fragment,
          .chunk = name.chunk};
}

std::vector<std::byte> new_contribution(int64_t encoded_bytes) {
  std::vector<std::byte> payload(size_t(kContributionOffset + encoded_bytes));
  payload[0] = std::byte(WantKind::kContribution);
  return payload;
}

base::Digest contribution_digest(std::span<const std::byte> payload) {
  return base::sha256(payload.subspan(size_t(kContributionOffset)));
}

base::Digest seal_contributions(std::span<std::vector<std::byte>> payloads,
                                std::span<const base::Digest> digests) {
  CHECK(path_length(int64_t(payloads.size())) <= kPathLengthMax, "{} chunks", payloads.size());
  const HashTree tree(digests);
  for (size_t chunk = 0; chunk < payloads.size(); ++chunk) {
    const auto path = tree.path(int64_t(chunk));
    std::ranges::copy(std::as_bytes(std::span(path)), payloads[chunk].begin() + 1);
  }
  return tree.root();
}

Bytes result_payload(const ResultHeader& result, std::span<const std::byte> encoded,
                     WantKind kind) {
  WireWriter header;
  header.number(kind);
  header.number(result.contributors);
  header.number(result.judged_out);
  header.number(result.weight_tokens);
  return join(header.finish(), encoded);
}

ResultHeader header_of(int64_t index, const Contributor& contributor) {
  return {.contributors = ContributorMask{1} << index,
          .judged_out = 0,
          .weight_tokens = contributor.weight_tokens};
}

Bytes state_payload(uint64_t version, std::span<const std::byte> block) {
  WireWriter header;
  header.number(WantKind::kState);
  header.number(version);
  return join(header.finish(), block);
}

Bytes past_payload(const FragmentStore::PastChunk& past) {
  WireWriter header;
  header.number(WantKind::kPast);
  header.number(past.step);
  header.number(uint8_t(past.is_refused));
  if (past.is_refused) return join(header.finish(), {});
  return join(header.finish(), past.result.encoded());
}

Bytes digests_payload(std::span<const std::byte> digests) {
  WireWriter header;
  header.number(WantKind::kDigests);
  return join(header.finish(), digests);
}

base::Result<WantKind> read_kind(std::span<const std::byte> payload) {
  if (payload.empty()) return base::Failure{"a chunk without a kind"};
  const auto want = decode<Want>(payload.first(1));
  if (!want.ok()) return base::Failure{want.reason()};
  return want->kind;
}

base::Result<ResultHeader> read_result_header(std::span<const std::byte> payload) {
  if (int64_t(payload.size()) < kResultOffset) return base::Failure{"a result without its header"};
  WireReader wire(payload.subspan(1, size_t(kResultOffset) - 1));
  ResultHeader header;
  wire.number(header.contributors);
  wire.number(header.judged_out);
  wire.number(header.weight_tokens);
  return header;
}

base::Result<uint64_t> read_state_version(std::span<const std::byte> payload) {
  if (int64_t(payload.size()) < kStateOffset) return base::Failure{"a block without its version"};
  WireReader wire(payload.subspan(1, size_t(kStateOffset) - 1));
  uint64_t version = 0;
  wire.number(version);
  return version;
}

base::Result<FragmentStore::PastChunk> read_past(const Bytes& payload) {
  if (int64_t(payload->size()) < kPastOffset) return base::Failure{"a result without its header"};
  const std::span<const std::byte> bytes = *payload;
  WireReader wire(bytes.subspan(1, size_t(kPastOffset) - 1));
  FragmentStore::PastChunk past;
  uint8_t is_refused = 0;
  wire.number(past.step);
  wire.number(is_refused);
  if (is_refused > 1) return base::Failure{"a result that is neither refused nor not"};
  past.is_refused = is_refused == 1;
  past.result = {.bytes = payload, .offset = kPastOffset};
  if (past.is_refused && !past.result.encoded().empty())
    return base::Failure{"a result that was refused, with its bytes"};
  return past;
}

}  // namespace net
