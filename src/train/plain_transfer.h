// The raw link beside which a round is measured: plain sockets, no frames, nothing computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/types.h"

namespace train {

// A bound and listening TCP socket on a free port of `host`. Throws resource_lost.
struct Listener {
  int socket = -1;
  net::Endpoint endpoint;
};
Listener make_listener(const std::string& host);

// One peer of an exchange in which each sends so many bytes to each other one, all at once.
class PlainTransfer {
 public:
  // Connects to all others, and accepts as many: call it in every peer. Throws resource_lost.
  PlainTransfer(const std::vector<Listener>& listeners, int64_t self);
  ~PlainTransfer();
  PlainTransfer(const PlainTransfer&) = delete;
  PlainTransfer& operator=(const PlainTransfer&) = delete;

  // Returns when all is sent and all has come. Throws resource_lost.
  void exchange(int64_t bytes_to_each);

 private:
  std::vector<int> outgoing_, incoming_;
};

}  // namespace train
