#include "train/packet_carrier.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/math.h"
#include "base/thread.h"

namespace train {
namespace {

// virtio_net_hdr of <linux/virtio_net.h>, which is no C++.
struct VirtioHeader {
  uint8_t flags, gso_type;  // Type 0: one packet.
  uint16_t header_bytes;    // A hint that may be wrong.
  uint16_t gso_size;        // Payload of each packet but the last.
  uint16_t checksum_start, checksum_offset;
};
constexpr size_t kHeader = sizeof(VirtioHeader);
static_assert(kHeader == 10);
constexpr size_t kPacketMax = kHeader + 65536;
// Of one device before the others have their turn.
constexpr int kPacketsAtOnce = 64;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

bool CarriedPacket::is_ipv4() const {
  return bytes_.size() >= kHeader + 20 && std::to_integer<int>(bytes_[kHeader]) >> 4 == 4;
}

uint8_t CarriedPacket::destination_host() const {
  return std::to_integer<uint8_t>(bytes_[kHeader + 19]);
}

int64_t CarriedPacket::wire_bytes() const {
  VirtioHeader header;
  std::memcpy(&header, bytes_.data(), kHeader);
  const auto total = int64_t(bytes_.size() - kHeader);
  if (header.gso_type == 0 || header.gso_size == 0) return total;
  const int64_t ip_header = std::to_integer<int64_t>(bytes_[kHeader] & std::byte{15}) * 4;
  const size_t tcp_length_at = kHeader + size_t(ip_header) + 12;
  if (tcp_length_at >= bytes_.size()) return total;
  const int64_t headers = ip_header + std::to_integer<int64_t>(bytes_[tcp_length_at] >> 4) * 4;
  const int64_t segments =
      base::div_ceil(std::max<int64_t>(total - headers, 1), int64_t{header.gso_size});
  return total + (segments - 1) * headers;
}

PacketCarrier::PacketCarrier(const NetLabOptions& options, std::vector<int> devices)
    : options_(options),
      devices_(std::move(devices)),
      stop_event_(eventfd(0, EFD_CLOEXEC)),
      random_(options.seed),
      scratch_(kPacketMax) {
  lines_.assign(devices_.size(), PacketLine(options.rate_mbit * 1e6 / 8, options.queue_seconds));
  region_lines_.assign(size_t(options.regions),
                       PacketLine(options.region_rate_mbit * 1e6 / 8, options.queue_seconds));
  thread_ = std::thread([this] { run(); });
}

PacketCarrier::~PacketCarrier() {
  is_stopped_ = true;
  eventfd_write(stop_event_, 1);
  thread_.join();
  close(stop_event_);
}

void PacketCarrier::run() {
  base::set_thread_name("atoll-lab");
  prctl(PR_SET_TIMERSLACK, 1);  // Nanoseconds; by default a packet could be 50 us late.
  while (!is_stopped_) {
    deliver_until(seconds_now());
    wait_for_work(seconds_now());
    for (size_t node = 0; node < devices_.size(); ++node) read_all(node, seconds_now());
  }
}

void PacketCarrier::wait_for_work(double now) {
  std::vector<pollfd> polled;
  for (const int device : devices_) polled.push_back({.fd = device, .events = POLLIN});
  polled.push_back({.fd = stop_event_, .events = POLLIN});
  timespec patience{};
  if (!held_.empty()) {
    const double wait = std::max(0.0, held_.front().until - now);
    patience.tv_sec = time_t(wait);
    patience.tv_nsec = long((wait - double(patience.tv_sec)) * 1e9);
  }
  ppoll(polled.data(), polled.size(), held_.empty() ? nullptr : &patience, nullptr);
}

void PacketCarrier::read_all(size_t node, double now) {
  for (int i = 0; i < kPacketsAtOnce; ++i) {
    const ssize_t size = read(devices_[node], scratch_.data(), scratch_.size());
    if (size <= 0) return;
    hold(node, CarriedPacket({scratch_.begin(), scratch_.begin() + size}), now);
  }
}

void PacketCarrier::hold(size_t sender, CarriedPacket packet, double now) {
  if (!packet.is_ipv4()) return;
  const size_t receiver = size_t(packet.destination_host()) - 1;
  if (receiver >= devices_.size()) return;
  std::optional<double> through = lines_[sender].put(packet.wire_bytes(), now);
  double way = options_.round_trip_ms / 2e3;
  const size_t region = sender % region_lines_.size();
  if (through && region != receiver % region_lines_.size()) {
    const auto far = region_lines_[region].put(packet.wire_bytes(), now);
    through = far ? std::optional(std::max(*through, *far)) : std::nullopt;
    way += options_.region_round_trip_ms / 2e3;
  }
  if (!through) {
    ++overflowed_;
  } else if (options_.loss > 0 && random_.uniform() < options_.loss) {
    ++lost_;
  } else {
    held_.push_back({.until = *through + way,
                     .order = order_++,
                     .receiver = receiver,
                     .packet = std::move(packet)});
    std::ranges::push_heap(held_, std::greater{});
  }
}

void PacketCarrier::deliver_until(double now) {
  while (!held_.empty() && held_.front().until <= now) {
    std::ranges::pop_heap(held_, std::greater{});
    const Held held = std::move(held_.back());
    held_.pop_back();
    const auto& bytes = held.packet.bytes();
    const bool is_taken = write(devices_[held.receiver], bytes.data(), bytes.size()) > 0;
    ++(is_taken ? carried_ : overflowed_);
  }
}

}  // namespace train
