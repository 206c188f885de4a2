// Between Endpoint, which people write, and the socket addresses that the system takes.
#pragma once

#include <optional>
#include <uv.h>
#include <vector>

#include "net/types.h"

namespace net {

// Nothing if the host is a name that has to be looked up.
std::optional<sockaddr_storage> numeric_address(const Endpoint& endpoint);
// In the order in which they should be tried.
std::vector<sockaddr_storage> found_addresses(const addrinfo* found);

Endpoint to_endpoint(const sockaddr_storage& address);
Endpoint local_endpoint(const uv_tcp_t* socket);
// Who has one address of it has all: an IPv4 address alone, of an IPv6 address the first 64 bits.
// `host` is an address as to_endpoint() writes it; empty if it is none.
std::string network_of(const std::string& host);
// An empty host if the connection is already gone.
Endpoint remote_endpoint(const uv_tcp_t* socket);

}  // namespace net
