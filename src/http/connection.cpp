#include "http/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>

namespace http {
namespace {

using Clock = std::chrono::steady_clock;

// Whether any of `events` came before the deadline. One that has passed still finds what is there.
bool await(int socket, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd entry{.fd = socket, .events = events, .revents = 0};
    const int count = poll(&entry, 1, int(std::clamp<int64_t>(left, 0, 1'000'000)));
    if (count > 0) return true;
    if (count == 0) return false;
    if (errno != EINTR) return false;
  }
}

}  // namespace

Connection::Connection(int socket, const ServerOptions& options,
                       const std::atomic<bool>& is_stopping)
    : socket_(socket), options_(options), is_stopping_(is_stopping) {}

bool Connection::await_request() {
  if (is_stopping_) return false;
  if (!has_unread() && !fill(Clock::now() + options_.idle)) return false;
  deadline_ = Clock::now() + options_.request;
  in_head_ = true;
  line_bytes_ = 0;
  head_bytes_ = 0;
  return true;
}

// A client that closes its side only for writing is taken to be gone too: nobody can tell apart.
bool Connection::is_gone() const {
  if (is_stopping_) return true;
  pollfd entry{.fd = socket_, .events = POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) > 0;
}

bool Connection::is_readable() const {
  return has_unread() || await(socket_, POLLIN, deadline_);
}

bool Connection::is_writable() const {
  return await(socket_, POLLOUT, Clock::now() + options_.write);
}

bool Connection::fill(Clock::time_point deadline) {
  if (!await(socket_, POLLIN, deadline)) return false;
  ssize_t count = 0;
  do {
    count = recv(socket_, buffer_.data(), buffer_.size(), 0);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) return false;
  begin_ = 0;
  end_ = size_t(count);
  return true;
}

// How many of the bytes may be taken: all but what would make the head too long. The head ends with
// an empty line.
size_t Connection::count_head(const char* bytes, size_t count) {
  for (size_t i = 0; i < count && in_head_; ++i) {
    if (head_bytes_ == options_.header_bytes_max) return i;
    ++head_bytes_;
    if (bytes[i] == '\n') {
      in_head_ = line_bytes_ > 0;
      line_bytes_ = 0;
    } else if (bytes[i] != '\r') {
      ++line_bytes_;
    }
  }
  return count;
}

ssize_t Connection::read(char* target, size_t size) {
  if (!has_unread() && !fill(deadline_)) return -1;
  if (Clock::now() > deadline_) return -1;
  const size_t count = count_head(buffer_.data() + begin_, std::min(size, end_ - begin_));
  if (count == 0) return -1;
  std::memcpy(target, buffer_.data() + begin_, count);
  begin_ += count;
  return ssize_t(count);
}

ssize_t Connection::write(const char* source, size_t size) {
  if (!is_writable()) return -1;
  ssize_t count = 0;
  do {
    count = send(socket_, source, size, MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  return count;
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}
void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace http
