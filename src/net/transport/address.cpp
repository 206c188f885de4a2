// IPv4 addresses that come in through an IPv6 socket ("::ffff:10.0.0.1") are written as what they
// are.
#include "net/transport/address.h"

#include <array>
#include <cstring>
#include <string_view>

namespace net {
std::optional<sockaddr_storage> numeric_address(const Endpoint& endpoint) {
  sockaddr_storage address{};
  if (uv_ip4_addr(endpoint.host.c_str(), endpoint.port, reinterpret_cast<sockaddr_in*>(&address)) ==
      0) {
    return address;
  }
  if (uv_ip6_addr(endpoint.host.c_str(), endpoint.port,
                  reinterpret_cast<sockaddr_in6*>(&address)) == 0) {
    return address;
  }
  return std::nullopt;
}

std::vector<sockaddr_storage> found_addresses(const addrinfo* found) {
  std::vector<sockaddr_storage> addresses;
  for (; found != nullptr; found = found->ai_next) {
    if (found->ai_addrlen > sizeof(sockaddr_storage)) continue;
    std::memcpy(&addresses.emplace_back(), found->ai_addr, found->ai_addrlen);
  }
  return addresses;
}

Endpoint to_endpoint(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN + 1> text{};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    uv_ip4_name(&v4, text.data(), text.size());
    return {text.data(), ntohs(v4.sin_port)};
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    uv_ip6_name(&v6, text.data(), text.size());
    std::string_view host = text.data();
    constexpr std::string_view kMapped = "::ffff:";
    const bool is_mapped = host.starts_with(kMapped) && host.find('.') != std::string_view::npos;
    if (is_mapped) host.remove_prefix(kMapped.size());
    return {std::string(host), ntohs(v6.sin6_port)};
  }
  return {};
}

std::string network_of(const std::string& host) {
  const auto address = numeric_address({host, 0});
  if (!address) return "";
  if (address->ss_family == AF_INET) return host;
  sockaddr_in6 v6{};
  std::memcpy(&v6, &*address, sizeof(v6));
  std::memset(&v6.sin6_addr.s6_addr[8], 0, 8);
  std::array<char, INET6_ADDRSTRLEN> text{};
  uv_ip6_name(&v6, text.data(), text.size());
  return std::string(text.data()) + "/64";
}

Endpoint local_endpoint(const uv_tcp_t* socket) {
  sockaddr_storage address{};
  int byte_count = sizeof(address);
  if (uv_tcp_getsockname(socket, reinterpret_cast<sockaddr*>(&address), &byte_count) != 0)
    return {};
  return to_endpoint(address);
}

Endpoint remote_endpoint(const uv_tcp_t* socket) {
  sockaddr_storage address{};
  int byte_count = sizeof(address);
  if (uv_tcp_getpeername(socket, reinterpret_cast<sockaddr*>(&address), &byte_count) != 0)
    return {};
  return to_endpoint(address);
}

}  // namespace net
