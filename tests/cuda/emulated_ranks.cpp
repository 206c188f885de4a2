#include "emulation/fake_device.h"
#include "train/device_ranks.h"

std::vector<backend::Backend> train_test::make_device_ranks(int count) {
  emulation::fake_device().total_bytes = int64_t{80} << 30;  // What all ranks share.
  return backend::make_cuda_backends(
      {.ranks = count, .attention = "plain", .tune_products = false});
}
