// One TCP connection over libuv: dialling all addresses of a host in order, TLS where the host has
// it, frames in both directions, an end. What it does not have is an opinion: everything is told to
// its observer.
//
// Life: dialling -> (securing ->) open -> ended; an accepted one begins with securing or open.
// After finish() nothing more is sent or told: what was sent goes out, then FIN, then it waits (not
// long) for the other side's FIN. Closing a socket at once, with bytes unread, would make the
// kernel send a reset, and the other side could lose our last words.
//
// What is sent waits here as messages. Without TLS libuv takes them as they are, payloads
// uncopied. With TLS they are encrypted record by record, as the socket takes them: OpenSSL's
// record goes to the system at once, and only the end of what it does not take is kept.
//
// The handles and requests that libuv holds are objects of their own, whose `data` points to the
// link, or to nothing when the link does not care any more; they delete themselves in their last
// callback. So a link can be destroyed at any time.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <uv.h>
#include <vector>

#include "net/machine.h"
#include "net/security/tls_session.h"
#include "net/transport/shared_checksums.h"
#include "net/wire/buffer_pool.h"
#include "net/wire/frame.h"

namespace net {

inline Instant monotonic_now() {
  return Instant(int64_t(uv_hrtime()));
}

class LinkObserver {
 public:
  virtual ~LinkObserver() = default;
  virtual void link_opened(LinkId link, const Remote& remote) = 0;
  virtual void link_received(LinkId link, Message message) = 0;
  virtual void link_drained(LinkId link) = 0;
  // Exactly once, and the last call.
  virtual void link_ended(LinkId link, const std::string& reason) = 0;
};

// What all links of a host share.
struct LinkContext {
  uv_loop_t* loop = nullptr;
  LinkObserver* observer = nullptr;
  const TlsContext* tls = nullptr;  // Null: plain TCP.
  Duration first_frame_timeout{};
  Duration dial_timeout{};
  int64_t queued_bytes_hard_max = 0;
  Duration write_stall_timeout{};
  double socket_bytes_per_second = 0;
  int64_t queued_bytes = 0;  // Of all links.
  std::atomic<int64_t> bytes_sent = 0;
  std::atomic<int64_t> bytes_received = 0;
  std::shared_ptr<BufferPool> buffers = BufferPool::create(64 * 1024 * 1024);
  SharedChecksums checksums;
  std::vector<std::byte> ciphertext;  // What was just read, of whichever link.
};

class Link {
 public:
  enum class Origin { kDialled, kAccepted };
  // The context outlives the link.
  Link(LinkContext& context, LinkId id, Origin origin);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  bool is_incoming() const { return origin_ == Origin::kAccepted; }
  bool has_ended() const { return phase_ == Phase::kEnded; }
  // The observer was told that it stands, or will be.
  bool has_stood() const { return has_stood_; }
  // Accepted, and nobody has proved anything yet.
  bool is_half_open() const { return is_incoming() && phase_ == Phase::kSecuring; }
  int64_t queued_bytes() const;
  const std::string& remote_network() const { return remote_network_; }  // Of an accepted one.

  // For kDialled, once. The addresses are tried in order; without them the endpoint's host is
  // looked up.
  void dial(const Endpoint& endpoint);
  void dial(const Endpoint& endpoint, std::vector<sockaddr_storage> addresses);
  // For kAccepted, once; open() goes on after it succeeded. Returns libuv's error, or 0.
  int accept(uv_stream_t* listener);
  void open();

  void send(Message message);
  // Once. REQUIRES: it has not ended.
  void finish(Duration patience);
  // Whatever should have happened by now is given up.
  void check_deadline(Instant now);
  // It may come to its end by time alone.
  bool has_deadline() const { return deadline_ != Instant::max() || queued_bytes() > 0; }
  // At once, with this reason.
  void cut(const std::string& reason);
  void cut_if_revoked();

 private:
  enum class Phase { kDialling, kSecuring, kOpen, kEnded };

  void on_resolved(int status, const addrinfo* found);
  void try_next_address();
  int connect(const sockaddr_storage& address);
  void on_connected(int status);
  std::span<std::byte> room_to_read();
  void on_read(ssize_t status);
  void on_frame_bytes(int64_t byte_count);
  void on_ciphertext(int64_t byte_count);
  void on_refused_read(ssize_t status);
  void make_session(TlsSession::Role role);
  void go_on_securing();
  void refuse(const std::string& reason);
  void stand();
  void read_frames();
  void on_written(int status, int64_t byte_count);
  void on_flushed(int status);
  using Status = base::Result<void>;
  Status pump();
  Status write_front();
  Status encrypt_some();
  void send_ciphertext(std::span<const std::byte> bytes);
  void flush();
  void tell_if_drained();
  void shut_down_if_sent();
  void shut_down();
  void end(const std::string& reason);
  void count_queued(int64_t byte_count);
  bool is_write_stalled(Instant now);
  void make_socket();
  void release_socket();
  void release_resolution();

  struct WriteRequest;
  struct Flush;

  LinkContext& context_;
  const LinkId id_;
  const Origin origin_;
  std::string remote_network_;
  NodeId node_;  // Of the other side, once it has proved it.
  Phase phase_ = Phase::kDialling;
  bool has_stood_ = false;
  bool is_finishing_ = false;
  Instant deadline_ = Instant::max();

  Endpoint endpoint_;  // As it was given to dial().
  uv_getaddrinfo_t* resolution_ = nullptr;
  std::vector<sockaddr_storage> addresses_;
  size_t next_address_ = 0;
  int last_error_ = 0;  // Of the address before.

  uv_tcp_t* socket_ = nullptr;
  FrameParser parser_;
  std::deque<Message> unsent_;  // Not given to libuv or, as a whole, to TLS.
  int64_t unsent_bytes_ = 0;
  int64_t counted_bytes_ = 0;    // Ours in LinkContext::queued_bytes.
  size_t unwritten_bytes_ = 0;   // In libuv's queue, when it was last seen to have shrunk,
  Instant shrunk_at_{};          // and when that was.
  bool was_above_half_ = false;  // And on_drained has not been told.

  // With TLS.
  std::unique_ptr<TlsSession> session_;
  int64_t bytes_to_secure_ = 0;       // That have come so far.
  std::string refusal_;               // Why it will not stand.
  FrameHeader header_;                // Of unsent_.front(), once it was begun,
  int64_t front_sent_ = 0;            // of which so many bytes are encrypted.
  std::vector<std::byte> unflushed_;  // Ciphertext that the system has not taken.
  bool is_flushing_ = false;
  bool is_close_told_ = false;
  int write_error_ = 0;  // Of libuv, while OpenSSL was sending.
  const std::shared_ptr<const char> life_ = std::make_shared<const char>();
};

}  // namespace net
