// A digest that is told from others at a glance.
#pragma once

#include <cstdint>

#include "base/hash.h"

namespace net {

inline base::Digest digest_of(uint8_t byte) {
  base::Digest digest;
  digest.bytes[0] = byte;
  return digest;
}

}  // namespace net
