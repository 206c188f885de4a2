// How the links of a host are secured.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "net/keys.h"

namespace net {

// TLS 1.3 (RFC 8446) with both sides' certificates, bound to the run by its protocol name (ALPN).
// Exactly one of `secret` and `allowed` is there.
struct Security {
  std::string run_name;
  NodeKey key;
  std::optional<RunSecret> secret;
  std::shared_ptr<const AllowedKeys> allowed;
};

}  // namespace net
