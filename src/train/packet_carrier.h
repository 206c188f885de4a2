// The thread of a NetLab: reads packets from the nodes' TUN devices, and writes each to the device
// of whom it is for when its time has come.
#pragma once

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "train/net_lab.h"
#include "train/packet_line.h"

namespace train {

// What a TUN device with a virtio header hands over: the header, then an IP packet, which may stand
// for many of the path's size.
class CarriedPacket {
 public:
  explicit CarriedPacket(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  bool is_ipv4() const;
  uint8_t destination_host() const;  // Last byte of the address. REQUIRES: is_ipv4().
  // Of IP, were each packet on its own. REQUIRES: is_ipv4().
  int64_t wire_bytes() const;
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class PacketCarrier {
 public:
  // Device i belongs to the node whose address ends in i + 1; not blocking. They stay the caller's.
  PacketCarrier(const NetLabOptions& options, std::vector<int> devices);
  ~PacketCarrier();
  PacketCarrier(const PacketCarrier&) = delete;
  PacketCarrier& operator=(const PacketCarrier&) = delete;

  NetLab::Counts counts() const {
    return {.carried = carried_, .lost = lost_, .overflowed = overflowed_};
  }

 private:
  struct Held {
    double until = 0;
    uint64_t order = 0;  // Among equal times: packets of a connection keep theirs.
    size_t receiver = 0;
    CarriedPacket packet;
    bool operator>(const Held& other) const {
      return until != other.until ? until > other.until : order > other.order;
    }
  };

  void run();
  void wait_for_work(double now);
  void read_all(size_t node, double now);
  void hold(size_t sender, CarriedPacket packet, double now);
  void deliver_until(double now);

  const NetLabOptions options_;
  const std::vector<int> devices_;
  int stop_event_;
  std::vector<PacketLine> lines_;  // By node.
  std::vector<PacketLine> region_lines_;
  std::vector<Held> held_;  // A heap, the earliest on top.
  uint64_t order_ = 0;
  base::Random random_;
  std::vector<std::byte> scratch_;
  std::atomic<int64_t> carried_ = 0, lost_ = 0, overflowed_ = 0;
  std::atomic<bool> is_stopped_ = false;
  std::thread thread_;  // Last: it uses the rest.
};

}  // namespace train
