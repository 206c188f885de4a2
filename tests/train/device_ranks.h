// Ranks with parameters of their own memory, for tests of what devices do for the outer loop: GPUs
// that are processors (tests/cuda), or CPUs that look like GPUs, with streams that run their work
// late.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace train_test {

std::vector<backend::Backend> make_device_ranks(int count);

}  // namespace train_test
