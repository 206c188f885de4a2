// Checksums of payloads that are sent more than once: a result goes to every member.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "net/types.h"

namespace net {

class SharedChecksums {
 public:
  // The CRC-32C of the payload; remembered for as long as somebody else holds it, too.
  uint32_t of(const Bytes& payload);

  int64_t made_count() const { return made_count_; }
  size_t size() const { return known_.size(); }

 private:
  std::map<std::weak_ptr<const std::vector<std::byte>>, uint32_t, std::owner_less<>> known_;
  size_t forget_at_ = 0;  // As many: those that are gone are looked for.
  int64_t made_count_ = 0;
};

}  // namespace net
