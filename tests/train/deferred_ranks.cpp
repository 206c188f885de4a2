#include "shard/bfloat16_device.h"
#include "support/deferred_backend.h"
#include "train/device_ranks.h"

std::vector<backend::Backend> train_test::make_device_ranks(int count) {
  auto backends = test::make_deferred_backends(count, test::Eagerness::kRandom);
  for (backend::Backend& backend : backends)
    backend.device = std::make_unique<shard_test::Bfloat16Device>(std::move(backend.device));
  return backends;
}
