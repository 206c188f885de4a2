// Scratch memory of the workers.
#include <cstdlib>

#include "cpu/cpu_backend.h"

namespace cpu {

Workers::Workers(int thread_count) : pool_(thread_count), scratch_(size_t(thread_count) + 1) {}

void Workers::Free::operator()(float* memory) const {
  std::free(memory);
}

float* Workers::Scratch::at_least(int64_t count_needed) {
  if (count < count_needed) {
    constexpr size_t kAlignment = 64;
    const size_t bytes = size_t(base::round_up(count_needed * 4, kAlignment));
    count = 0;
    memory.reset();  // First, as both together may not fit.
    memory.reset(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
    if (!memory) {
      throw base::resource_lost(fmt::format("cannot allocate {} bytes of scratch memory", bytes),
                                "Use fewer threads or shorter sequences.");
    }
    count = count_needed;
  }
  return memory.get();
}

float* Workers::scratch(int worker, int64_t count) {
  return scratch_[size_t(worker)].at_least(count);
}

float* Workers::shared_scratch(int64_t count) {
  return scratch_.back().at_least(count);
}

}  // namespace cpu
