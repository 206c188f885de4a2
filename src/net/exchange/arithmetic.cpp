#include "net/exchange/arithmetic.h"

#include <algorithm>

#include "base/log.h"

namespace net {
namespace {

std::span<const std::byte> behind(const Bytes& payload, int64_t offset) {
  return std::span(*payload).subspan(size_t(offset));
}

Product hashed(const ResultHeader& header, Bytes payload) {
  const base::Digest digest = base::sha256(*payload);
  return {.payload = std::move(payload), .header = header, .digest = digest};
}

}  // namespace

base::Result<Product> check_contribution(const FragmentStore& store, const ChunkName& name,
                                         Bytes payload) {
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

base::Result<Product> sum(FragmentStore& store, const ChunkName& name,
                          const std::vector<Summand>& summands) {
  std::vector<FragmentStore::Part> parts;
  std::vector<int64_t> indexes;
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
    indexes.push_back(summand.index);
  }
  if (parts.empty()) return base::Failure{"nothing to sum"};
  const FragmentStore::Mean mean = store.reduce(name.fragment, name.chunk, parts);
  ResultHeader header;
  for (size_t i = 0; i < parts.size(); ++i) {
    const ContributorMask bit = ContributorMask{1} << indexes[i];
    if (std::ranges::find(mean.left_out, parts[i].peer) != mean.left_out.end()) {
      header.judged_out |= bit;
    } else {
      header.contributors |= bit;
      header.weight_tokens += parts[i].weight_tokens;
    }
  }
  return hashed(header, result_payload(header, mean.encoded));
}

}  // namespace net
