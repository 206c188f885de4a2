// Which of several candidates is the fastest, without spending time on those that are not.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>

namespace cuda {

struct Fastest {
  size_t index = 0;
  float milliseconds = std::numeric_limits<float>::infinity();        // Infinity: all failed.
  float first_milliseconds = std::numeric_limits<float>::infinity();  // Of candidate 0.
  size_t tried = 0;
};

// run(i) runs candidate i once and returns its time in milliseconds, infinity if it fails. A
// candidate's time is the median of some runs after two to warm it up; one that is then 1.5 times
// as slow as the best is left at that. After `milliseconds_max` in all no further one is begun.
Fastest find_fastest(size_t candidates, const std::function<float(size_t)>& run,
                     float milliseconds_max);

}  // namespace cuda
