// What a fuzz target says of itself, besides its entry point.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using FuzzInput = std::vector<std::byte>;

// Inputs that get far, to begin with.
std::vector<FuzzInput> valid_fuzz_inputs();

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t byte_count);

inline FuzzInput with_selector(size_t selector, const FuzzInput& bytes) {
  FuzzInput input(1 + bytes.size(), std::byte(uint8_t(selector)));
  std::copy(bytes.begin(), bytes.end(), input.begin() + 1);
  return input;
}
