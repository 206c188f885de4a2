// Where nodes lie, from what was measured between them.
#pragma once

#include <cstdint>
#include <vector>

#include "net/coordinator/path_table.h"

namespace net {

// By index, numbered as they first occur; empty where there are none. Single linkage: the shortest
// round trips that connect all, in order; where one is three times the one before, or more, the
// longer ones lie between regions. Of several such steps the largest counts. Below 5 ms all is
// near.
std::vector<uint8_t> regions_of(const Ways& ways);

// The place of each in a ring whose slowest step is as quick as was found: nearest neighbours, then
// turning pieces of it round while that helps. What is not known counts as slowest.
std::vector<uint8_t> ring_of(const Ways& ways);

}  // namespace net
