// A thread with a libuv loop that runs one machine over TCP: listening, dialling, framing, timers.
// Nothing here decides.
//
// Links are secured by TLS if the options say how. A link that was accepted is the machine's only
// once its other side has proved who it is; until then it may send 1 KiB, in 5 s.
//
// Frames: a fixed header of 64 bytes (docs/formats/wire.md) and the payload, both with CRC-32C. A
// link that sends anything else is closed with a reason; no other link notices.
//
// Threads: the machine's calls all happen on the loop thread. post() may be called from any thread.
#pragma once

#include <functional>
#include <memory>

#include "net/incident.h"
#include "net/machine.h"
#include "net/security.h"

namespace net {

// The host behaves as if it had a worse line: to try out what a run will be like over it, on
// machines that have a better one. Beneath TCP nothing changes: what is lost on the way, or how a
// long path slows it down, cannot be rehearsed so.
struct RehearsalOptions {
  double bytes_per_second = 0;  // In each direction, frames included; 0: no bound.
  Duration delay{0};            // Of all that is sent.
  Duration cut_every{0};        // All links are closed so often; 0: never.
  bool is_on() const {
    return bytes_per_second > 0 || delay > Duration{0} || cut_every > Duration{0};
  }
};

// Of the loop thread by default, and of those that do a machine's jobs.
inline constexpr const char* kLoopThreadName = "atoll-net";
inline constexpr const char* kWorkerThreadName = "net-worker";

struct HostOptions {
  Endpoint listen{"0.0.0.0", 0};  // Port 0: the system picks one.
  std::string thread_name = kLoopThreadName;
  // More incoming links are closed at once, of all and from one address. Where the process may have
  // fewer descriptors, fewer links; some are kept back for its files.
  int64_t links_max = 1024;
  int64_t links_per_address_max = 256;
  // Of accepted links that have not proved who they are. One more, and the oldest one goes.
  int64_t half_open_max = 64;
  // An incoming link that has proved nothing, and then one that sent no frame, is closed.
  Duration first_frame_timeout = std::chrono::seconds(5);
  // To look up a name, for each address of it, and to secure the connection.
  Duration dial_timeout = std::chrono::seconds(10);
  int64_t queued_bytes_hard_max =
      64 * 1024 * 1024;  // Per link; a machine that queues more has a bug: the link is closed.
  // A link whose other side has taken nothing of what is queued for so long is closed.
  Duration write_stall_timeout = std::chrono::seconds(60);
  std::shared_ptr<const Security> security;  // Null: plain TCP.
  RehearsalOptions rehearsal;
  // Of all links together, with what TLS and TCP/IP add; 0: as much as goes. Chunks wait for their
  // turn; everything else goes first, and the chunks make up for it.
  double uplink_bytes_per_second = 0;
  double socket_bytes_per_second = 0;  // Of one link: the system paces it, where it can.
  OnIncident on_incident;              // Connections that are refused.
};

class Host {
 public:
  // Binds and listens before it returns: throws bad_input for a port in use or an address that is
  // not ours, with a hint. The machine is not called before start().
  static std::unique_ptr<Host> create(const HostOptions& options, Machine& machine);
  // Stops the loop, closes everything, joins the thread. What was sent gets up to a second to go
  // out. A name that is being looked up is waited for: the system's resolver cannot be interrupted.
  virtual ~Host() = default;

  virtual Endpoint listening_on() const = 0;
  virtual void start() = 0;
  // Runs on the loop thread, soon; before start(): after the machine's on_start.
  using Call = std::function<void(Instant now, Outbox& out)>;
  virtual void post(Call call) = 0;
  virtual int64_t bytes_sent() const = 0;  // All links, with what TLS adds. Any thread.
  virtual int64_t bytes_received() const = 0;
};

}  // namespace net
