#include "train/plain_transfer.h"

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/error.h"

namespace train {
namespace {

constexpr size_t kTransferPiece = size_t{256} * 1024;

base::Error transfer_failure(const char* what) {
  return base::resource_lost(fmt::format("plain transfer: {}: {}", what, std::strerror(errno)));
}

sockaddr_in address_of(const net::Endpoint& endpoint) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(endpoint.port);
  inet_pton(AF_INET, endpoint.host.c_str(), &address.sin_addr);
  return address;
}

// Moves `bytes` bytes by calls that move some; false if one moved none.
template <class Move>
bool move_all(int64_t bytes, const Move& move) {
  while (bytes > 0) {
    const ssize_t moved = move(size_t(std::min<int64_t>(bytes, kTransferPiece)));
    if (moved <= 0) return false;
    bytes -= moved;
  }
  return true;
}

}  // namespace

Listener make_listener(const std::string& host) {
  Listener listener{.socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                    .endpoint = {host, 0}};
  sockaddr_in address = address_of(listener.endpoint);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.socket, generic, size) != 0 || listen(listener.socket, 128) != 0 ||
      getsockname(listener.socket, generic, &size) != 0) {
    throw transfer_failure("listening");
  }
  listener.endpoint.port = ntohs(address.sin_port);
  return listener;
}

PlainTransfer::PlainTransfer(const std::vector<Listener>& listeners, int64_t self) {
  for (size_t peer = 0; peer < listeners.size(); ++peer) {
    if (int64_t(peer) == self) continue;
    const int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = address_of(listeners[peer].endpoint);
    if (connect(out, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      throw transfer_failure("connecting");
    outgoing_.push_back(out);
  }
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    incoming_.push_back(accept(listeners[size_t(self)].socket, nullptr, nullptr));
    if (incoming_.back() < 0) throw transfer_failure("accepting");
  }
}

PlainTransfer::~PlainTransfer() {
  for (const int socket : outgoing_) close(socket);
  for (const int socket : incoming_) close(socket);
}

void PlainTransfer::exchange(int64_t bytes_to_each) {
  std::vector<std::thread> threads;
  std::atomic<bool> is_whole = true;
  const std::vector<std::byte> zeros(kTransferPiece);
  for (const int socket : outgoing_) {
    threads.emplace_back([&, socket] {
      if (!move_all(bytes_to_each,
                    [&](size_t size) { return send(socket, zeros.data(), size, 0); }))
        is_whole = false;
    });
  }
  for (const int socket : incoming_) {
    threads.emplace_back([&, socket] {
      std::vector<std::byte> piece(kTransferPiece);
      if (!move_all(bytes_to_each,
                    [&](size_t size) { return recv(socket, piece.data(), size, 0); }))
        is_whole = false;
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (!is_whole) throw transfer_failure("a connection broke");
}

}  // namespace train
