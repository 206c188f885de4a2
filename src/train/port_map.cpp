#include "train/port_map.h"

#include <array>
#include <charconv>
#include <fmt/format.h>
#include <unistd.h>

namespace train {
namespace {

struct Provider {
  const char* address;
  const char* port_prefix;
};
constexpr std::array kProviders = {Provider{"RUNPOD_PUBLIC_IP", "RUNPOD_TCP_PORT_"},
                                   Provider{"PUBLIC_IPADDR", "VAST_TCP_PORT_"}};
// Ports that are asked for from here on have equal numbers on both sides.
constexpr int kEqualPortsFrom = 70000;
constexpr int kPortMax = 65535;

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::optional<int> parse_number(const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<uint16_t> parse_port(const std::string& text) {
  const auto number = parse_number(text);
  if (!number || *number < 1 || *number > kPortMax) return std::nullopt;
  return uint16_t(*number);
}

struct Mapped {
  std::string variable;
  int inside = 0;  // As it was asked for.
  uint16_t outside = 0;
};

// The mapping of `port`, or for 0 the first one with equal numbers.
std::optional<Mapped> find_mapping(const Provider& provider, uint16_t port,
                                   const Environment& environment) {
  const std::string prefix = provider.port_prefix;
  for (auto at = environment.lower_bound(prefix);
       at != environment.end() && at->first.starts_with(prefix); ++at) {
    const auto inside = parse_number(at->first.substr(prefix.size()));
    const auto outside = parse_port(at->second);
    if (!inside || !outside) continue;
    const bool is_equal = *inside >= kEqualPortsFrom;
    const int real_inside = is_equal ? *outside : *inside;
    if (port == 0 ? is_equal : real_inside == port)
      return Mapped{.variable = at->first, .inside = real_inside, .outside = *outside};
  }
  return std::nullopt;
}

}  // namespace

Environment process_environment() {
  Environment environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t end = text.find('=');
    if (end != std::string::npos) environment[text.substr(0, end)] = text.substr(end + 1);
  }
  return environment;
}

PortMap map_port(const net::Endpoint& listen, const Environment& environment) {
  PortMap map{.listen = listen, .advertise = {}, .source = {}, .problem = {}};
  if (is_loopback(listen.host)) return map;  // Nobody comes in from outside.
  for (const Provider& provider : kProviders) {
    const auto address = environment.find(provider.address);
    if (address == environment.end() || address->second.empty()) continue;
    const auto mapped = find_mapping(provider, listen.port, environment);
    if (!mapped) {
      map.problem = fmt::format(
          "{} is set, but no port of this machine is mapped to {}: ask the provider for port {}, "
          "or "
          "nobody can dial this node",
          provider.address,
          listen.port == 0 ? "one of equal number" : fmt::format("node.listen's {}", listen.port),
          listen.port == 0 ? kEqualPortsFrom : int(listen.port));
      continue;
    }
    const auto endpoint =
        net::parse_endpoint(net::Endpoint{address->second, mapped->outside}.text());
    if (!endpoint.ok()) continue;
    map.listen.port = uint16_t(mapped->inside);
    map.advertise = *endpoint;
    map.source = mapped->variable;
    map.problem.clear();
    return map;
  }
  return map;
}

}  // namespace train
