// A machine whose behaviour a test writes in place, and which tells the test's thread what
// happened; and a plain socket for clients that do not behave.
#pragma once

#include <arpa/inet.h>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "net/host.h"
#include "net/machine.h"

namespace net {

// How long a test waits for what must come. It decides only about how long a failing test takes.
inline constexpr auto kTestPatience = std::chrono::seconds(60);

class ScriptedMachine : public Machine {
 public:
  // What to do; set before the host starts, called on its thread.
  std::function<void(Outbox& out)> start;
  std::function<void(LinkId link, Outbox& out)> opened;
  std::function<void(LinkId link, const std::string& reason, Outbox& out)> closed;
  std::function<void(LinkId link, const Message& message, Outbox& out)> received;
  std::function<void(LinkId link, Outbox& out)> drained;

  // What happened so far.
  struct Story {
    std::vector<LinkId> incoming;
    std::vector<LinkId> outgoing;
    std::map<LinkId, Endpoint> remotes;
    std::map<LinkId, NodeId> nodes;
    std::map<LinkId, std::string> closed;  // With the reason.
    std::map<LinkId, std::vector<Message>> received;
    int64_t ticks = 0;
    bool was_reentered = false;
  };

  // Returns false if `condition` does not come true.
  bool wait_until(const std::function<bool(const Story&)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kTestPatience, [&] { return condition(story_); });
  }
  Story story() {
    const std::lock_guard lock(mutex_);
    return story_;
  }

  void on_start(Instant, Outbox& out) override {
    happen([](Story&) {},
           [&] {
             if (start) start(out);
           });
  }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant,
                    Outbox& out) override {
    const auto note = [&](Story& story) {
      (incoming ? story.incoming : story.outgoing).push_back(link);
      story.remotes[link] = remote.endpoint;
      story.nodes[link] = remote.node;
    };
    happen(note, [&] {
      if (opened) opened(link, out);
    });
  }
  void on_link_closed(LinkId link, const std::string& reason, Instant, Outbox& out) override {
    happen([&](Story& story) { story.closed[link] = reason; },
           [&] {
             if (closed) closed(link, reason, out);
           });
  }
  void on_message(LinkId link, const Message& message, Instant, Outbox& out) override {
    happen([&](Story& story) { story.received[link].push_back(message); },
           [&] {
             if (received) received(link, message, out);
           });
  }
  void on_drained(LinkId link, Instant, Outbox& out) override {
    happen([](Story&) {},
           [&] {
             if (drained) drained(link, out);
           });
  }
  // Again and again, for tests that wait for some.
  void on_tick(Instant now, Outbox& out) override {
    happen([](Story& story) { ++story.ticks; }, [&] { out.wake_at(now); });
  }

 private:
  template <class Note, class Act>
  void happen(const Note& note, const Act& act) {
    const bool is_reentered = std::exchange(is_inside_, true);
    act();
    is_inside_ = is_reentered;
    const std::lock_guard lock(mutex_);
    note(story_);
    story_.was_reentered |= is_reentered;
    changed_.notify_all();
  }

  bool is_inside_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  Story story_;
};

// A machine and its host on a free port of the loopback interface.
struct TestNode {
  ScriptedMachine machine;
  std::unique_ptr<Host> host;

  TestNode() : TestNode(HostOptions()) {}
  explicit TestNode(HostOptions options) {
    options.listen = {"127.0.0.1", 0};
    host = Host::create(options, machine);
  }
  Endpoint endpoint() const { return host->listening_on(); }
};

class PlainSocket {
 public:
  PlainSocket() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  explicit PlainSocket(int descriptor) : descriptor_(descriptor) {}
  ~PlainSocket() { ::close(descriptor_); }
  PlainSocket(const PlainSocket&) = delete;
  PlainSocket& operator=(const PlainSocket&) = delete;

  // Returns the port, or 0. Nobody listens on it, so that connections to it are refused.
  uint16_t bind_to_free_port() {
    sockaddr_in address = loopback(0);
    socklen_t byte_count = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(descriptor_, generic, byte_count) != 0) return 0;
    if (::getsockname(descriptor_, generic, &byte_count) != 0) return 0;
    return ntohs(address.sin_port);
  }
  bool connect(uint16_t port) {
    const sockaddr_in address = loopback(port);
    return ::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
           0;
  }
  bool send(std::span<const std::byte> bytes) {
    return ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == ssize_t(bytes.size());
  }
  // What comes next; empty at the end.
  std::vector<std::byte> receive() {
    be_patient();
    std::vector<std::byte> buffer(4096);
    const ssize_t byte_count = ::recv(descriptor_, buffer.data(), buffer.size(), 0);
    buffer.resize(size_t(std::max<ssize_t>(byte_count, 0)));
    return buffer;
  }
  // Reads until the other side closes; false if it does not.
  bool is_closed_by_peer() { return read_to_end() == 0 || errno == ECONNRESET; }
  // The same, and this side stays open.
  bool is_shut_by_peer() { return read_to_end() == 0; }
  uint16_t listen() {
    const uint16_t port = bind_to_free_port();
    return ::listen(descriptor_, 8) == 0 ? port : uint16_t{0};
  }
  int accept() {
    be_patient();
    return ::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC);
  }

 private:
  void be_patient() {
    const timeval patience{.tv_sec = std::chrono::seconds(kTestPatience).count(), .tv_usec = 0};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ssize_t read_to_end() {
    be_patient();
    std::byte buffer[4096];
    ssize_t byte_count = 0;
    while ((byte_count = ::recv(descriptor_, buffer, sizeof(buffer), 0)) > 0) continue;
    return byte_count;
  }
  static sockaddr_in loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  const int descriptor_;
};

class PlainListener {
 public:
  uint16_t port() const { return port_; }
  PlainSocket& accept() { return accepted_.emplace_back(listener_.accept()); }

 private:
  PlainSocket listener_;
  const uint16_t port_ = listener_.listen();
  std::deque<PlainSocket> accepted_;
};

}  // namespace net
