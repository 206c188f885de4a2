#include "train/port_map.h"

#include <cstdlib>

#include "support/catch.h"

using train::Environment;
using train::map_port;

TEST_CASE("port map: a machine of one's own has none") {
  const auto map = map_port({"0.0.0.0", 4000}, {{"HOME", "/root"}, {"RUNPOD_TCP_PORT_4000", "7"}});
  REQUIRE(map.listen == net::Endpoint{"0.0.0.0", 4000});
  REQUIRE(map.advertise == net::Endpoint{});
  REQUIRE((map.source.empty() && map.problem.empty()));
}

TEST_CASE("port map: what RunPod and Vast.ai tell is taken") {
  const auto runpod = map_port({"0.0.0.0", 29501}, {{"RUNPOD_PUBLIC_IP", "203.0.113.7"},
                                                    {"RUNPOD_TCP_PORT_22", "10022"},
                                                    {"RUNPOD_TCP_PORT_29501", "10345"}});
  REQUIRE(runpod.listen == net::Endpoint{"0.0.0.0", 29501});
  REQUIRE(runpod.advertise == net::Endpoint{"203.0.113.7", 10345});
  REQUIRE(runpod.source == "RUNPOD_TCP_PORT_29501");

  const auto vast = map_port({"0.0.0.0", 29501},
                             {{"PUBLIC_IPADDR", "2001:db8::7"}, {"VAST_TCP_PORT_29501", "33333"}});
  REQUIRE(vast.advertise == net::Endpoint{"2001:db8::7", 33333});
}

TEST_CASE("port map: a port of equal numbers is found, also by the number it really has") {
  const Environment environment = {{"RUNPOD_PUBLIC_IP", "203.0.113.7"},
                                   {"RUNPOD_TCP_PORT_22", "10022"},
                                   {"RUNPOD_TCP_PORT_70000", "10030"}};
  for (const uint16_t port : {uint16_t{0}, uint16_t{10030}}) {
    const auto map = map_port({"0.0.0.0", port}, environment);
    REQUIRE(map.listen.port == 10030);
    REQUIRE(map.advertise == net::Endpoint{"203.0.113.7", 10030});
  }
}

TEST_CASE("port map: what listens only on the machine itself is not mapped") {
  for (const char* host : {"127.0.0.1", "::1", "localhost"}) {
    const auto map = map_port(
        {host, 0}, {{"RUNPOD_PUBLIC_IP", "203.0.113.7"}, {"RUNPOD_TCP_PORT_70000", "10030"}});
    REQUIRE(map.listen == net::Endpoint{host, 0});
    REQUIRE(map.advertise == net::Endpoint{});
    REQUIRE(map.problem.empty());
  }
}

TEST_CASE("port map: a port that is not mapped is told, and what is nonsense passed over") {
  const Environment environment = {
      {"RUNPOD_PUBLIC_IP", "203.0.113.7"}, {"RUNPOD_TCP_PORT_22", "10022"},
      {"RUNPOD_TCP_PORT_4000", "0"},       {"RUNPOD_TCP_PORT_4001", "70000"},
      {"RUNPOD_TCP_PORT_4002", "12x"},     {"RUNPOD_TCP_PORT_", "12"}};
  for (const uint16_t port : {0, 4000, 4001, 4002, 4003}) {
    const auto map = map_port({"0.0.0.0", port}, environment);
    REQUIRE(map.advertise == net::Endpoint{});
    REQUIRE(map.listen.port == port);
    REQUIRE(map.problem.find("RUNPOD_PUBLIC_IP is set") == 0);
  }
  const auto bad_host =
      map_port({"0.0.0.0", 4000}, {{"PUBLIC_IPADDR", "no host"}, {"VAST_TCP_PORT_4000", "4"}});
  REQUIRE(bad_host.advertise == net::Endpoint{});
}

TEST_CASE("port map: the environment is that of the process") {
  REQUIRE(setenv("ATOLL_TEST_VARIABLE", "a=b", 1) == 0);
  REQUIRE(train::process_environment().at("ATOLL_TEST_VARIABLE") == "a=b");
}
