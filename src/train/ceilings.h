// What a device reaches at best: the rate of its matrix products and of copies inside its memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace train {

struct ProductShape {
  int64_t m, n, k;
};
std::string name_of(const ProductShape& shape);  // "8192x6144x4096"

struct Ceilings {
  double flops = 0;             // Of the best shape, FLOP/s; 0: no shape could be measured.
  double bytes_per_second = 0;  // Read plus written; 0: could not be measured.
  struct Rate {
    ProductShape shape;
    double flops;
  };
  std::vector<Rate> products;  // In the order of the shapes.
  std::string error;           // What could not be measured, and why; empty: nothing.
};

struct CeilingTimes {
  double headline_seconds = 0;  // Of the first shape.
  double shape_seconds = 0;     // Of each other one.
  double copy_seconds = 0;      // 0: copies are not measured.
};

// Means over the given times, not the best of them: a power limit shows only in what lasts. Random
// numbers, since a GPU multiplies zeros faster. Call it in the thread that has entered the device;
// its memory is given back. What cannot be measured, as when memory is short, is told in `error`.
Ceilings measure_ceilings(backend::Backend& backend, const std::vector<ProductShape>& shapes,
                          const CeilingTimes& times);

}  // namespace train
