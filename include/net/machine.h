// The border between decisions and the world. Coordinator and member are machines: everything that
// happens comes in as a call with the time, everything they do goes out through an Outbox. They own
// no clock, no socket and no thread, so that a simulator with a seed can run a whole cluster, and
// libuv is only a thin shell (net/host.h).
#pragma once

#include <functional>
#include <string>

#include "net/keys.h"
#include "net/message.h"

namespace net {

// The other side of a link.
struct Remote {
  Endpoint endpoint;
  // Whose key it has proved to have; zero on links that are not secured.
  NodeId node{};
};

class Outbox;

// Arithmetic that would keep the machine from its sockets and heartbeats. `work` runs once, on some
// worker thread, beside whatever the machine does meanwhile, so it uses nothing of the machine's;
// `done` runs after it, as a call of the machine like any other.
struct Job {
  std::function<void()> work;
  std::function<void(Instant now, Outbox& out)> done;
};

// What a machine can do to the world. Calls do not re-enter the machine; their effects come back as
// later events.
class Outbox {
 public:
  virtual ~Outbox() = default;
  // Starts dialling; on_link_open or on_link_closed follows. The id is valid at once, and send() on
  // it queues.
  virtual LinkId connect(const Endpoint& endpoint) = 0;
  virtual void send(LinkId link, Message message) = 0;
  // Closes after what was sent has gone out (bounded). No event follows for this link.
  virtual void close(LinkId link) = 0;
  // Bytes accepted by send() and not yet by the network.
  virtual int64_t queued_bytes(LinkId link) const = 0;
  // Of all links together.
  virtual int64_t all_queued_bytes() const = 0;
  // Jobs run at the same time and end in any order. The machine bounds how many it has out.
  virtual void start(Job job) = 0;
  // on_tick is wanted at that time, or soon if it is over. The earliest of these counts, and the
  // next on_tick forgets all: it looks at the machine's deadlines again, and each says here when it
  // will have come (Turn::is_due).
  virtual void wake_at(Instant at) = 0;
};

// A chunk sender stops at this many queued bytes on a link and goes on at on_drained. The system's
// own buffer, which keeps a long path full, comes on top; this is only to fill it without a pause.
inline constexpr int64_t kQueuedBytesMax = 1024 * 1024;

// After a call that did something on_tick follows within this time.
inline constexpr Duration kReviewWithin = std::chrono::milliseconds(100);

class Machine {
 public:
  virtual ~Machine() = default;
  virtual void on_start(Instant now, Outbox& out) = 0;
  // A link we dialled stands, or one was accepted (`incoming`).
  virtual void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                            Outbox& out) = 0;
  // It could not be made, broke, was closed by the other side, or sent something that is no frame.
  virtual void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) = 0;
  virtual void on_message(LinkId link, const Message& message, Instant now, Outbox& out) = 0;
  // queued_bytes(link) has fallen to half of kQueuedBytesMax or less after having been above.
  virtual void on_drained(LinkId link, Instant now, Outbox& out) = 0;
  // When the machine wanted to be woken, and within kReviewWithin after any other call: so it need
  // not say when what it changed there is due. Where nothing happens and nothing is due nothing is
  // called.
  virtual void on_tick(Instant now, Outbox& out) = 0;
};

}  // namespace net
