#include "net/turn.h"

#include <cstring>
#include <span>

namespace net {

uint64_t run_hash(const std::string& run_name) {
  const base::Digest digest = base::sha256(std::as_bytes(std::span(run_name)));
  uint64_t hash = 0;
  for (size_t i = 0; i < sizeof(hash); ++i) hash |= uint64_t{digest.bytes[i]} << (8 * i);
  return hash;
}

Bytes no_payload() {
  static const Bytes kEmpty = std::make_shared<const std::vector<std::byte>>();
  return kEmpty;
}

}  // namespace net
