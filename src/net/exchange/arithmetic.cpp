#include "net/exchange/arithmetic.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "net/exchange/hash_tree.h"

namespace net {
namespace {

std::span<const std::byte> behind(const Bytes& payload, int64_t offset) {
  return std::span(*payload).subspan(size_t(offset));
}

base::Result<void> check_root(const FragmentStore& store, const ChunkName& name,
                              const base::Digest& root, std::span<const std::byte> payload) {
  if (int64_t(payload.size()) < kContributionOffset) return base::Failure{"it is too short"};
  base::Digest path[kPathLengthMax];
  std::memcpy(path, payload.data() + 1, sizeof path);
  const auto length = size_t(path_length(store.chunk_count(name.fragment)));
  if (root_of(contribution_digest(payload), name.chunk, std::span(path).first(length)) == root)
    return {};
  return base::Failure{"it is not what was announced"};
}

// Of the parts with these headers. With a subtotal that is left out go all that are in it.
Bytes payload_of(WantKind kind, const FragmentStore::Mean& mean,
                 std::span<const FragmentStore::Part> parts, std::span<const ResultHeader> headers,
                 ResultHeader& header) {
  for (size_t i = 0; i < parts.size(); ++i) {
    header.judged_out |= headers[i].judged_out;
    if (std::ranges::find(mean.left_out, parts[i].peer) != mean.left_out.end()) {
      header.judged_out |= headers[i].contributors;
    } else {
      header.contributors |= headers[i].contributors;
      header.weight_tokens += headers[i].weight_tokens;
    }
  }
  return result_payload(header, mean.encoded, kind);
}

Product hashed(const ResultHeader& header, Bytes payload) {
  const base::Digest digest = base::sha256(*payload);
  return {.payload = std::move(payload), .header = header, .digest = digest};
}

}  // namespace

base::Result<Product> check_contribution(const FragmentStore& store, const ChunkName& name,
                                         const base::Digest& root, Bytes payload) {
  const auto bound = check_root(store, name, root, *payload);
  if (!bound.ok()) return base::Failure{bound.reason()};
  const auto checked =
      store.check_contribution(name.fragment, name.chunk, behind(payload, kContributionOffset));
  if (!checked.ok()) return base::Failure{checked.reason()};
  return Product{.payload = std::move(payload), .header = {}, .digest = {}};
}

base::Result<Product> check_result(const FragmentStore& store, const ChunkName& name,
                                   const ResultHeader& header, Bytes payload) {
  const auto checked =
      store.check_result(name.fragment, name.chunk, behind(payload, kResultOffset));
  if (!checked.ok()) return base::Failure{checked.reason()};
  return hashed(header, std::move(payload));
}

base::Result<Product> check_subtotal(const FragmentStore& store, const ChunkName& name,
                                     const ResultHeader& header, Bytes payload) {
  const auto checked =
      store.check_result(name.fragment, name.chunk, behind(payload, kResultOffset));
  if (!checked.ok()) return base::Failure{checked.reason()};
  return Product{.payload = std::move(payload), .header = header, .digest = {}};
}

base::Result<Product> sum(FragmentStore& store, const ChunkName& name,
                          const std::vector<Summand>& summands) {
  std::vector<FragmentStore::Part> parts;
  std::vector<ResultHeader> headers;
  for (const Summand& summand : summands) {
    const auto checked = summand.is_checked ? base::Result<void>{}
                                            : store.check_contribution(name.fragment, name.chunk,
                                                                       summand.part.encoded());
    if (!checked.ok()) {
      base::log_warning("round {} of fragment {}: left out our own part of chunk {}: {}",
                        name.round, name.fragment, name.chunk, checked.reason());
      continue;
    }
    parts.push_back(summand.part);
    headers.push_back(summand.header);
  }
  if (parts.empty()) return base::Failure{"nothing to sum"};
  const FragmentStore::Mean mean = store.reduce(name.fragment, name.chunk, parts);
  ResultHeader header;
  Bytes payload = payload_of(name.kind, mean, parts, headers, header);
  return hashed(header, std::move(payload));
}

Remade remake(FragmentStore& store, const ChunkName& name, const std::vector<Summand>& summands) {
  Remade remade;
  std::vector<FragmentStore::Part> parts;
  std::vector<ResultHeader> headers;
  for (const Summand& summand : summands) {
    if (!check_contribution(store, name, summand.root, summand.part.bytes).ok())
      remade.wrong |= ContributorMask{1} << summand.index;
    parts.push_back(summand.part);
    headers.push_back(summand.header);
  }
  if (remade.wrong != 0) return remade;
  const auto mean = store.repeat(name.fragment, name.round, name.chunk, parts);
  if (!mean) return remade;
  ResultHeader header;
  remade.digest = base::sha256(*payload_of(WantKind::kResult, *mean, parts, headers, header));
  return remade;
}

}  // namespace net
