#include "cuda/device_under_test.h"
#include "emulation/fake_device.h"
#include "emulation/fibers.h"

namespace cuda_test {

backend::Backend make_device_under_test(const std::string&) {
  return std::move(
      backend::make_cuda_backends({.ranks = 1, .attention = "plain", .tune_products = false})
          .front());
}

std::vector<backend::Backend> make_ranks_under_test(int ranks) {
  return backend::make_cuda_backends(
      {.ranks = ranks, .attention = "plain", .tune_products = false});
}

void with_gpus(int count, const std::function<void()>& body) {
  emulation::fake_device().count = count;
  body();
  emulation::fake_device().count = 1;
}

int64_t affordable_steps() {
  return 12;
}

void for_each_order(const std::function<void(const char* order)>& body) {
  using emulation::Order;
  emulation::set_order({.order = Order::kForward});
  body("in order");
  emulation::set_order({.order = Order::kReverse});
  body("reversed");
  emulation::set_order({.order = Order::kShuffled, .seed = 7});
  body("shuffled");
  emulation::set_order({.order = Order::kGreedy});
  body("greedy");
  emulation::set_order({});
}

}  // namespace cuda_test
