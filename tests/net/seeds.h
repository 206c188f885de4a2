// How many seeds a test runs, and from which on: as somebody says who wants more of them.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace net {

inline uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace net
