// A contribution as a store freezes it, from bytes that are there already.
#pragma once

#include <algorithm>
#include <memory>
#include <span>

#include "net/fragment_store.h"

namespace net {

inline Bytes frozen(std::span<const std::byte> encoded) {
  auto payload =
      std::make_shared<std::vector<std::byte>>(new_contribution(int64_t(encoded.size())));
  std::ranges::copy(encoded, payload->begin() + kContributionOffset);
  return payload;
}

}  // namespace net
