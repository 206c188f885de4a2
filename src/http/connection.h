// One connection as a stream for cpp-httplib, with what it does not bound: the bytes of a request's
// head, the time of a whole request, and how long a client may take nothing.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <httplib.h>
#include <string>

#include "http/server.h"

namespace http {

class Connection final : public httplib::Stream, public Client {
 public:
  // Does not own the socket. `is_stopping` outlives the object.
  Connection(int socket, const ServerOptions& options, const std::atomic<bool>& is_stopping);

  // Waits for the first byte of the next request, at most ServerOptions::idle. False: there is
  // none.
  bool await_request();

  // Client
  bool is_gone() const override;

  // httplib::Stream. -1: the connection is of no use any more.
  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* target, size_t size) override;
  ssize_t write(const char* source, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;

  bool has_unread() const { return begin_ < end_; }
  bool fill(Clock::time_point deadline);  // Reads what there is, once there is something.
  size_t count_head(const char* bytes, size_t count);

  const int socket_;
  const ServerOptions& options_;
  const std::atomic<bool>& is_stopping_;
  std::array<char, 16384> buffer_;
  size_t begin_ = 0, end_ = 0;
  Clock::time_point deadline_ = {};  // Of the request.
  bool in_head_ = true;
  int line_bytes_ = 0;  // Of the head's line at hand, without its end.
  int64_t head_bytes_ = 0;
};

}  // namespace http
