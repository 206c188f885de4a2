// Bytes from outside never crash a machine, whoever sends them: every message has a chance of being
// changed on its way into something that can still be a frame. What comes of the run does not
// matter here, only that the processes live; the program would end in an abort.
#include <cstdlib>

#include "net/cluster.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::seconds;

class Scrambler {
 public:
  Scrambler(uint64_t seed, double chance) : random_(seed, 2), chance_(chance) {}

  void scramble(Message& message) {
    remember(message.payload);
    if (random_.uniform() >= chance_) return;
    ++count_;
    switch (random_.below(5)) {
      case 0:
        message.type = MessageType(random_.below(40));
        return;
      case 1:
        message.payload = payloads_[random_.below(payloads_.size())];
        return;
      case 2:
        scramble(message.authority);
        return;
      case 3:
        flip(message);
        return;
      default:
        message.payload = std::make_shared<const std::vector<std::byte>>(
            message.payload->begin(),
            message.payload->begin() + ptrdiff_t(random_.below(message.payload->size() + 1)));
    }
  }
  int64_t count() const { return count_; }

 private:
  void remember(const Bytes& payload) {
    if (payloads_.size() < 500) payloads_.push_back(payload);
    payloads_[random_.below(payloads_.size())] = payload;
  }
  void scramble(Authority& authority) {
    const uint64_t value = random_.below(2) == 0 ? random_.below(8) : random_.next_u64();
    switch (random_.below(5)) {
      case 0:
        authority.term = uint32_t(value);
        return;
      case 1:
        authority.round = value;
        return;
      case 2:
        authority.attempt = uint32_t(value);
        return;
      case 3:
        authority.fragment = uint32_t(value);
        return;
      default:
        authority.chunk = uint32_t(value);
    }
  }
  void flip(Message& message) {
    if (message.payload->empty()) return;
    auto bytes = std::make_shared<std::vector<std::byte>>(*message.payload);
    for (uint64_t i = 0; i <= random_.below(4); ++i) {
      (*bytes)[random_.below(bytes->size())] = std::byte(random_.next_u64());
    }
    message.payload = bytes;
  }

  base::Random random_;
  const double chance_;
  std::vector<Bytes> payloads_;
  int64_t count_ = 0;
};

TEST_CASE("garbage: no message ends a machine") {
  int64_t count = 0;
  int64_t round_count = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    INFO("seed " << seed);
    ClusterOptions options = quick_cluster(seed, 3);
    options.trainer.fragment_count = 1 + int64_t(seed % 2);
    options.coordinator.start_members = 2;
    Cluster cluster(options);
    Scrambler scrambler(seed, seed % 4 == 0 ? 0.1 : 0.01);
    cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                        Message& message) {
      before(from, to, message);
      scrambler.scramble(message);
    };
    cluster.start_all();
    for (int i = 0; i < 30; ++i) {
      cluster.world.run_for(seconds(2));
      for (const HostId node : cluster.running_nodes()) {
        if (!cluster.node(node).stopped()) continue;
        cluster.crash_node(node);
        cluster.start_node(node);
      }
    }
    count += scrambler.count();
    round_count += cluster.oracle.round_count();
  }
  REQUIRE(count > 1000);
  REQUIRE(round_count > 40);  // Enough of it was understood.
}

}  // namespace
}  // namespace net
