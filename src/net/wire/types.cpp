// Addresses as people write them.
#include "net/types.h"

#include <algorithm>
#include <charconv>

namespace net {
namespace {

// RFC 1035: a name has at most 253 characters. What may stand in an IPv6 address is allowed too,
// its zone included.
bool is_host(const std::string& host) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(".-_:%").find(c) != std::string_view::npos;
  };
  return !host.empty() && host.size() <= 253 && std::ranges::all_of(host, is_allowed);
}

}  // namespace

std::string Endpoint::text() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

base::Result<Endpoint> parse_endpoint(const std::string& text) {
  const auto failure = [&](const char* found) {
    return base::Failure{fmt::format("\"{}\": {}; expected host:port or [IPv6]:port", text, found)};
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return failure("no port");

  Endpoint endpoint;
  const char* const end = text.data() + text.size();
  const auto port = std::from_chars(text.data() + colon + 1, end, endpoint.port);
  if (port.ec != std::errc() || port.ptr != end)
    return failure("the port is no number up to 65535");

  const std::string host = text.substr(0, colon);
  const bool in_brackets = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  endpoint.host = in_brackets ? host.substr(1, host.size() - 2) : host;
  if (!is_host(endpoint.host)) return failure("the host is no name and no address");
  const bool is_v6 = endpoint.host.find(':') != std::string::npos;
  if (is_v6 != in_brackets) return failure("brackets belong around IPv6 addresses, and only there");
  return endpoint;
}

}  // namespace net
