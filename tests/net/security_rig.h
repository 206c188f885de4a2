// Keys, secrets and nodes that use them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/keys.h"
#include "net/security.h"

namespace net {

inline KeyBytes key_bytes(uint8_t fill) {
  KeyBytes bytes;
  bytes.fill(fill);
  return bytes;
}

inline NodeKey node_key(uint8_t fill) {
  return NodeKey(key_bytes(fill));
}

inline std::shared_ptr<const Security> with_secret(uint8_t node, uint8_t secret = 200,
                                                   const std::string& run = "a run") {
  return std::make_shared<const Security>(Security{.run_name = run,
                                                   .key = node_key(node),
                                                   .secret = RunSecret(key_bytes(secret)),
                                                   .allowed = nullptr});
}

inline std::shared_ptr<AllowedKeys> allowing(const std::vector<uint8_t>& nodes) {
  std::vector<NodeId> ids;
  for (const uint8_t node : nodes) ids.push_back(node_key(node).id());
  auto allowed = std::make_shared<AllowedKeys>();
  allowed->set(ids);
  return allowed;
}

inline std::shared_ptr<const Security> with_keys(uint8_t node,
                                                 std::shared_ptr<const AllowedKeys> allowed,
                                                 const std::string& run = "a run") {
  return std::make_shared<const Security>(Security{
      .run_name = run, .key = node_key(node), .secret = {}, .allowed = std::move(allowed)});
}

}  // namespace net
