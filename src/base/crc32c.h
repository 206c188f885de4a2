// The two ways to compute CRC-32C, apart, so that a test can hold them against each other.
// Everybody else calls base::crc32c(), which takes the fastest one that the processor has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace base {

uint32_t crc32c_by_table(std::span<const std::byte> bytes, uint32_t seed);

bool has_crc32c_instruction();
// REQUIRES: has_crc32c_instruction().
uint32_t crc32c_by_instruction(std::span<const std::byte> bytes, uint32_t seed);

}  // namespace base
