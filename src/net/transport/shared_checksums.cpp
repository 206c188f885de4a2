#include "net/transport/shared_checksums.h"

#include <algorithm>

#include "base/hash.h"

namespace net {
namespace {

constexpr size_t kForgetMin = 64;

}  // namespace

uint32_t SharedChecksums::of(const Bytes& payload) {
  if (const auto found = known_.find(payload); found != known_.end()) return found->second;
  const uint32_t checksum = base::crc32c(*payload);
  ++made_count_;
  if (payload.use_count() == 1) return checksum;
  if (known_.size() >= forget_at_) {
    std::erase_if(known_, [](const auto& entry) { return entry.first.expired(); });
    forget_at_ = std::max(kForgetMin, 2 * known_.size());
  }
  known_.emplace(payload, checksum);
  return checksum;
}

}  // namespace net
