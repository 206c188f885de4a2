// A contribution as a store freezes it, from bytes that are there already.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "net/fragment_store.h"

namespace net {

inline Bytes frozen(std::span<const std::byte> encoded) {
  auto payload =
      std::make_shared<std::vector<std::byte>>(new_contribution(int64_t(encoded.size())));
  std::ranges::copy(encoded, payload->begin() + kContributionOffset);
  return payload;
}

// A whole contribution, chunk by chunk, with its root.
struct SealedContribution {
  std::vector<Bytes> payloads;
  base::Digest root;
};
inline SealedContribution sealed(const std::vector<std::vector<std::byte>>& encoded) {
  std::vector<std::vector<std::byte>> payloads;
  std::vector<base::Digest> digests;
  for (const auto& bytes : encoded) {
    payloads.push_back(*frozen(bytes));
    digests.push_back(contribution_digest(payloads.back()));
  }
  SealedContribution sealed{.payloads = {}, .root = seal_contributions(payloads, digests)};
  for (auto& payload : payloads)
    sealed.payloads.push_back(std::make_shared<const std::vector<std::byte>>(std::move(payload)));
  return sealed;
}

}  // namespace net
