#include "cuda/device_under_test.h"

namespace cuda_test {

backend::Backend make_device_under_test(const std::string& attention) {
  return std::move(
      backend::make_cuda_backends(
          {.ranks = 1, .deterministic = true, .attention = attention, .tune_products = false})
          .front());
}

std::vector<backend::Backend> make_ranks_under_test(int ranks) {
  return backend::make_cuda_backends(
      {.ranks = ranks, .deterministic = true, .attention = "plain", .tune_products = false});
}

void with_gpus(int count, const std::function<void()>& body) {
  if (backend::count_cuda_devices() >= count) body();
}

int64_t affordable_steps() {
  return 200;
}

void for_each_order(const std::function<void(const char* order)>& body) {
  for (int i = 0; i < 3; ++i) body("as they come");
}

}  // namespace cuda_test
