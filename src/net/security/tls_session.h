// TLS 1.3 (RFC 8446) over bytes that somebody else moves: ciphertext in and out, plain text in and
// out. It knows neither sockets nor time.
//
// Both sides show a certificate that holds their node's key, and who accepts it decides by the
// run's secret or its list of keys (net/security.h). The run's name is the protocol name (ALPN), so
// that what was said for one run is worth nothing in another. Nothing is resumed: a session ends
// with its connection, and its keys with it.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "net/security.h"
#include "net/security/openssl_handles.h"

namespace net {

// What all sessions of a host share.
class TlsContext {
 public:
  explicit TlsContext(const Security& security);
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  // Whether who has this key may be here now.
  bool allows(const NodeId& node) const { return !allowed_ || allowed_->contains(node); }
  // Rises when that may have changed for somebody; 0 where it never does.
  bool has_list() const { return allowed_ != nullptr; }
  uint64_t generation() const { return allowed_ ? allowed_->generation() : 0; }

 private:
  friend class TlsSession;
  friend struct TlsCallbacks;
  PrivateKey signer_;  // Of a run with a secret, to verify with.
  const std::shared_ptr<const AllowedKeys> allowed_;
  const std::string protocol_;  // With its length before it, as ALPN has it.
  BioMethod bio_;
  TlsSettings settings_;
};

class TlsSession {
 public:
  enum class Role { kClient, kServer };
  // Takes ciphertext that must be sent, in order; called inside of the calls below. It keeps what
  // it cannot send at once.
  using Send = std::function<void(std::span<const std::byte> ciphertext)>;

  // The context outlives the session.
  TlsSession(const TlsContext& context, Role role, Send send);
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // Ciphertext that came, for the calls that follow; it must stay until they have used it up, which
  // they do when they return false or 0.
  void receive(std::span<const std::byte> ciphertext);

  // To be called at the start, and after each receive(), until it returns true: then the session
  // stands and peer() has proved itself. A failure is final, and has been told to the other side.
  base::Result<bool> handshake();
  const NodeId& peer() const { return peer_; }

  // Decrypts into the start of `plain`. 0: all that came is used up.
  base::Result<int64_t> read(std::span<std::byte> plain);
  bool is_closed_by_peer() const;  // It said that nothing more comes.
  // Encrypts and sends the first bytes, as many as make one record (16 KiB); says how many.
  base::Result<int64_t> write(std::span<const std::byte> plain);
  // Says that nothing more comes.
  void close();

 private:
  friend struct TlsCallbacks;
  base::Failure failure() const;

  const Send send_;
  std::span<const std::byte> received_;
  NodeId peer_;
  bool stands_ = false;
  int64_t record_count_ = 0;  // Encrypted.
  std::string refusal_;       // Why we do not take the other side.
  TlsState state_;
};

}  // namespace net
