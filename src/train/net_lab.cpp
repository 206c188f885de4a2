#include "train/net_lab.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "train/packet_carrier.h"

namespace train {
namespace {

// A file descriptor that is closed with its object.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

base::Failure failure(const char* what) {
  return base::Failure{fmt::format("{}: {}", what, std::strerror(errno))};
}

Descriptor own_namespace() {
  return Descriptor(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

ifreq request_for(const char* name) {
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return request;
}

bool turn_on(int control, const char* name) {
  ifreq request = request_for(name);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  return ioctl(control, SIOCSIFFLAGS, &request) == 0;
}

bool set_address(int control, const char* name, unsigned long what, const std::string& address) {
  ifreq request = request_for(name);
  auto* in = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
  in->sin_family = AF_INET;
  inet_pton(AF_INET, address.c_str(), &in->sin_addr);
  return ioctl(control, what, &request) == 0;
}

// In the namespace of the calling thread. Where packets are lost each must be one; otherwise the
// kernel may hand over many as one, as a network card would take them, which is much quicker.
base::Result<Descriptor> make_device(const std::string& address, bool may_be_many) {
  Descriptor device(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (device.get() < 0) return failure("/dev/net/tun");
  constexpr const char* kName = "lab";
  ifreq request = request_for(kName);
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(device.get(), TUNSETIFF, &request) != 0) return failure("making a TUN device");
  const unsigned offload = may_be_many ? TUN_F_CSUM | TUN_F_TSO4 : TUN_F_CSUM;
  if (ioctl(device.get(), TUNSETOFFLOAD, offload) != 0) return failure("TUNSETOFFLOAD");
  const Descriptor control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!set_address(control.get(), kName, SIOCSIFADDR, address) ||
      !set_address(control.get(), kName, SIOCSIFNETMASK, "255.255.255.0") ||
      !turn_on(control.get(), kName) || !turn_on(control.get(), "lo")) {
    return failure("setting up a TUN device");
  }
  // Where the device's own queue may not be made longer, bursts may be lost before they get here.
  ifreq queue = request_for(kName);
  queue.ifr_qlen = 10'000;
  [[maybe_unused]] const int is_short = ioctl(control.get(), SIOCSIFTXQLEN, &queue);
  return device;
}

struct LabPlace {
  Descriptor name_space;
  Descriptor device;
};

class NamespaceLab final : public NetLab {
 public:
  NamespaceLab(const NetLabOptions& options, std::vector<LabPlace> places)
      : options_(options), places_(std::move(places)) {}

  std::string address(int64_t node) const override { return address_of(node); }

  void enter(int64_t node) override {
    CHECK(setns(places_.at(size_t(node)).name_space.get(), CLONE_NEWNET) == 0);
  }
  void inside(int64_t node, const std::function<void()>& body) override {
    std::exception_ptr error;
    std::thread([&] {
      try {
        enter(node);
        body();
      } catch (...) {
        error = std::current_exception();
      }
    }).join();
    if (error) std::rethrow_exception(error);
  }

  void start() override {
    std::vector<int> devices;
    for (const LabPlace& place : places_) devices.push_back(place.device.get());
    carrier_ = std::make_unique<PacketCarrier>(options_, std::move(devices));
  }
  Counts counts() const override { return carrier_ ? carrier_->counts() : Counts{}; }

  static std::string address_of(int64_t node) { return fmt::format("10.77.0.{}", node + 1); }

 private:
  const NetLabOptions options_;
  std::vector<LabPlace> places_;
  std::unique_ptr<PacketCarrier> carrier_;  // Last: it reads the devices.
};

base::Result<LabPlace> make_place(int64_t node, bool may_be_many) {
  if (unshare(CLONE_NEWNET) != 0) return failure("making a network namespace");
  base::Result<Descriptor> device = make_device(NamespaceLab::address_of(node), may_be_many);
  if (!device) return base::Failure{device.reason()};
  return LabPlace{.name_space = own_namespace(), .device = std::move(*device)};
}

}  // namespace

base::Result<std::unique_ptr<NetLab>> NetLab::create(const NetLabOptions& options) {
  CHECK(options.nodes >= 1 && options.nodes <= 200, "{}", options.nodes);
  std::vector<LabPlace> places;
  base::Result<void> made;
  // Who leaves a namespace may not be allowed to come back; a thread need not.
  std::thread([&] {
    for (int64_t node = 0; made && node < options.nodes; ++node) {
      base::Result<LabPlace> place = make_place(node, options.loss == 0);
      place ? places.push_back(std::move(*place)) : void(made = base::Failure{place.reason()});
    }
  }).join();
  if (!made) return base::Failure{made.reason()};
  return std::unique_ptr<NetLab>(std::make_unique<NamespaceLab>(options, std::move(places)));
}

}  // namespace train
