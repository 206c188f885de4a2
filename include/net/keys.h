// Who a node is, and who may speak to it. docs/formats/wire.md has the argument.
//
// A node is an Ed25519 key (RFC 8032); it makes it itself and shows the public half. Two ways to
// say who is in a run, both without a certificate authority:
//
//   secret   whoever has the run's secret. One file, the same on all nodes.
//   keys     whoever's public key is on the list that the coordinator has. No two nodes share
//            anything, and one can be put out while the run goes on.
//
// All texts are lines that a person can copy; `#` begins a comment. Parsers are pure functions; a
// reason never quotes what could be a secret.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace net {

using KeyBytes = std::array<uint8_t, 32>;

// The public half of a node's key.
struct NodeId {
  KeyBytes bytes{};
  auto operator<=>(const NodeId&) const = default;
  bool is_zero() const { return *this == NodeId{}; }
  // A point of small order, for which anybody can make signatures that OpenSSL takes. No link
  // proves such a key, and no list may have it; zero is one of them.
  bool is_weak() const;
  std::string text() const;  // 64 hexadecimal digits.
  // The first 8 bytes of the SHA-256 of the key, never 0: short enough for every message. To find
  // another key with the same number takes 2^64 tries.
  uint64_t number() const;
};
base::Result<NodeId> parse_node_id(const std::string& text);

// A private key, as its seed of 32 bytes.
class NodeKey {
 public:
  static NodeKey make();  // Throws resource_lost where the system has no random bytes.
  explicit NodeKey(const KeyBytes& seed);

  const NodeId& id() const { return id_; }
  const KeyBytes& seed() const { return seed_; }
  std::string file_text() const;

 private:
  KeyBytes seed_;
  NodeId id_;
};
base::Result<NodeKey> parse_node_key(const std::string& file_text);

class RunSecret {
 public:
  static RunSecret make();
  explicit RunSecret(const KeyBytes& bytes) : bytes_(bytes) {}

  // The key that signs the certificates of a run's nodes. Another for every name of a run, so that
  // a secret that is used twice still keeps two runs apart. (HMAC-SHA256 of the name, RFC 2104.)
  NodeKey signer(const std::string& run_name) const;
  std::string file_text() const;

 private:
  KeyBytes bytes_;
};
// Takes a file's text, or the digits alone as they stand in an environment variable.
base::Result<RunSecret> parse_run_secret(const std::string& text);

struct AllowedKey {
  NodeId id;
  std::string name;   // For people; at most 64 bytes.
  int64_t until = 0;  // Seconds since 1970; 0: for ever.
  bool operator==(const AllowedKey&) const = default;
};
inline constexpr int64_t kAllowedKeysMax = 1024;
// Lines of `KEY NAME` or `KEY NAME until YYYY-MM-DD` (in UTC; that day is the last).
base::Result<std::vector<AllowedKey>> parse_allowed_keys(const std::string& file_text);

// The keys that are allowed now. Any thread; shared by whoever changes it and the hosts that follow
// it: a host closes the links of a key that is not allowed any more at its next tick.
class AllowedKeys {
 public:
  bool contains(const NodeId& id) const;
  // Rises with every change.
  uint64_t generation() const;
  std::vector<NodeId> list() const;  // In order.
  void set(const std::vector<NodeId>& ids);

 private:
  mutable std::mutex mutex_;
  std::vector<NodeId> ids_;
  uint64_t generation_ = 0;
};

}  // namespace net
