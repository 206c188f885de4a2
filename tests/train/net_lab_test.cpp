// The arithmetic of lines, packets carried between what stands in for devices, and where the system
// allows it a whole lab.
#include "train/net_lab.h"

#include <arpa/inet.h>
#include <array>
#include <chrono>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/catch.h"
#include "train/packet_carrier.h"
#include "train/packet_line.h"
#include "train/plain_transfer.h"

namespace train {
namespace {

constexpr int kPatienceMs = 40'000;  // A failure then ends the test instead of hanging it.
constexpr size_t kHeader = 10;

// An IPv4 packet with a virtio header, for node `receiver`; as many as `segments` if above 1.
std::vector<std::byte> make_packet(uint8_t receiver, uint8_t mark, size_t payload,
                                   size_t segments) {
  std::vector<std::byte> bytes(kHeader + 40 + payload);
  if (segments > 1) {
    bytes[1] = std::byte{1};
    const auto each = uint16_t((payload + segments - 1) / segments);
    std::memcpy(&bytes[4], &each, 2);
  }
  bytes[kHeader] = std::byte{0x45};
  bytes[kHeader + 19] = std::byte(receiver + 1);
  bytes[kHeader + 20 + 12] = std::byte{0x50};
  bytes.back() = std::byte(mark);
  return bytes;
}

// Datagram sockets in the place of TUN devices.
struct Devices {
  explicit Devices(size_t count) : outer(count), inner(count) {
    for (size_t i = 0; i < count; ++i) {
      std::array<int, 2> pair{};
      REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair.data()) == 0);
      outer[i] = pair[0];
      inner[i] = pair[1];
    }
  }
  ~Devices() {
    for (size_t i = 0; i < outer.size(); ++i) {
      close(outer[i]);
      close(inner[i]);
    }
  }
  void send(size_t node, const std::vector<std::byte>& packet) {
    pollfd polled{.fd = outer[node], .events = POLLOUT};
    REQUIRE(poll(&polled, 1, kPatienceMs) == 1);
    REQUIRE(write(outer[node], packet.data(), packet.size()) == ssize_t(packet.size()));
  }
  std::vector<std::byte> receive(size_t node) {
    pollfd polled{.fd = outer[node], .events = POLLIN};
    REQUIRE(poll(&polled, 1, kPatienceMs) == 1);
    std::vector<std::byte> packet(70'000);
    const ssize_t size = read(outer[node], packet.data(), packet.size());
    REQUIRE(size > 0);
    packet.resize(size_t(size));
    return packet;
  }
  std::vector<int> outer, inner;
};

TEST_CASE("a line takes what its rate allows and loses what its queue cannot hold", "[net-lab]") {
  PacketLine line(1e6, 0.5);
  REQUIRE(*line.put(100'000, 10) == Approx(10.1));
  REQUIRE(*line.put(400'000, 10) == Approx(10.5));
  REQUIRE(*line.put(200'000, 10) == Approx(10.7));  // It began within half a second.
  REQUIRE(!line.put(1, 10));
  REQUIRE(*line.put(1000, 10.3) == Approx(10.701));
  REQUIRE(*line.put(1000, 20) == Approx(20.001));

  PacketLine slow(1000, 0);  // It still takes what a host hands over at once.
  REQUIRE(slow.put(65'536, 0));
  REQUIRE(slow.put(1, 0));
  PacketLine any(0, 0);
  REQUIRE(*any.put(1'000'000'000, 3) == 3);
}

TEST_CASE("many packets that lie together count as many", "[net-lab]") {
  REQUIRE(CarriedPacket(make_packet(0, 0, 1000, 1)).wire_bytes() == 1040);
  REQUIRE(CarriedPacket(make_packet(0, 0, 3000, 3)).wire_bytes() == 3120);
  REQUIRE(!CarriedPacket(std::vector<std::byte>(5)).is_ipv4());
}

TEST_CASE("packets come to whom they are for, in order and not too early", "[net-lab]") {
  Devices devices(3);
  const PacketCarrier carrier({.rate_mbit = 8, .round_trip_ms = 60}, devices.inner);
  const auto start = std::chrono::steady_clock::now();
  for (const uint8_t mark : {1, 2, 3}) devices.send(0, make_packet(2, mark, 9960, 1));
  devices.send(1, make_packet(0, 9, 60, 1));
  for (const uint8_t mark : {1, 2, 3}) {
    REQUIRE(devices.receive(2) == make_packet(2, mark, 9960, 1));
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    REQUIRE(passed.count() >= 0.03 + mark * 0.01);
  }
  REQUIRE(devices.receive(0) == make_packet(0, 9, 60, 1));
}

TEST_CASE("nodes of a region share the line to the others", "[net-lab]") {
  Devices devices(3);  // The first and the last one are in one region.
  const PacketCarrier carrier({.regions = 2, .region_rate_mbit = 8, .region_round_trip_ms = 60},
                              devices.inner);
  const auto start = std::chrono::steady_clock::now();
  devices.send(0, make_packet(1, 1, 9960, 1));
  devices.send(0, make_packet(2, 9, 60, 1));
  REQUIRE(devices.receive(2) == make_packet(2, 9, 60, 1));
  devices.send(2, make_packet(1, 2, 9960, 1));
  for (const uint8_t mark : {1, 2}) {
    REQUIRE(devices.receive(1) == make_packet(1, mark, 9960, 1));
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    REQUIRE(passed.count() >= 0.03 + mark * 0.01);
  }
}

TEST_CASE("the share that is to be lost is lost", "[net-lab]") {
  constexpr int kPackets = 2000;
  Devices devices(2);
  const PacketCarrier carrier({.loss = 0.25, .seed = 7}, devices.inner);
  // What is for nobody is dropped; after each the next one is the same draw in every run.
  devices.send(0, make_packet(77, 0, 10, 1));
  devices.send(0, std::vector<std::byte>(3));
  base::Random random(7);
  for (int i = 0; i < kPackets; ++i) {
    devices.send(0, make_packet(1, uint8_t(i), 10, 1));
    if (random.uniform() < 0.25) continue;
    REQUIRE(devices.receive(1) == make_packet(1, uint8_t(i), 10, 1));
  }
}

TEST_CASE("nodes of a lab reach each other and nobody else", "[net-lab]") {
  const auto lab = NetLab::create({.nodes = 2, .rate_mbit = 1000, .round_trip_ms = 1});
  if (!lab) {
    WARN("no lab here: " << lab.reason());
    return;
  }
  std::vector<Listener> listeners;
  for (int64_t node = 0; node < 2; ++node) {
    (*lab)->inside(node, [&] { listeners.push_back(make_listener((*lab)->address(node))); });
  }
  REQUIRE_THROWS_AS((*lab)->inside(0, [] { make_listener("10.77.0.2"); }), base::Error);
  (*lab)->start();
  const auto connect_from = [&](int64_t from, size_t to) {
    int out = -1;
    (*lab)->inside(from, [&] { out = socket(AF_INET, SOCK_STREAM, 0); });
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(listeners[to].endpoint.port)};
    inet_pton(AF_INET, listeners[to].endpoint.host.c_str(), &address.sin_addr);
    REQUIRE(connect(out, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    return out;
  };
  const int out = connect_from(0, 1);
  const int in = accept(listeners[1].socket, nullptr, nullptr);
  REQUIRE(write(out, "hello", 5) == 5);
  std::array<char, 5> heard{};
  REQUIRE(recv(in, heard.data(), 5, MSG_WAITALL) == 5);
  REQUIRE(std::string(heard.data(), 5) == "hello");
  REQUIRE((*lab)->counts().carried > 0);
  for (const int socket : {out, in, listeners[0].socket, listeners[1].socket}) close(socket);
}

}  // namespace
}  // namespace train
