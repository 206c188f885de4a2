// Three ways to turn bytes or counters into bits, each for one purpose:
//
//   crc32c   a checksum of what travels or lies on a disk: catches accidents, not attackers.
//   Digest   SHA-256 (FIPS 180-4): names state. Two peers with equal digests have equal state.
//   Philox   a counter-based random generator (Salmon et al., "Parallel random numbers: as easy as
//   1, 2, 3", SC 2011):
//            the same bits for the same key and counter on every machine, host or device, in any
//            order.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"

namespace base {

// CRC-32C (Castagnoli, RFC 3720 appendix B.4). `seed` is the checksum of the bytes before, to go on
// from.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);

struct Digest {
  std::array<uint8_t, 32> bytes{};
  auto operator<=>(const Digest&) const = default;
  bool is_zero() const { return *this == Digest{}; }
  std::string hex() const;  // 64 characters.
};
Digest sha256(std::span<const std::byte> bytes);
Result<Digest> parse_digest(const std::string& hex);

// SHA-256 over bytes that arrive piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::span<const std::byte> bytes);
  Digest finish();  // The object takes no more bytes after it.

 private:
  void* context_;
};

// Philox4x32-10: four 32-bit words for (key, counter).
constexpr std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low,
                                         uint64_t counter_high = 0) {
  std::array<uint32_t, 4> c = {uint32_t(counter_low), uint32_t(counter_low >> 32),
                               uint32_t(counter_high), uint32_t(counter_high >> 32)};
  uint32_t k0 = uint32_t(key);
  uint32_t k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1,
         uint32_t(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

// A sequence of random numbers over Philox: a value type, cheap to make, with its whole state in
// (key, position).
class Random {
 public:
  explicit Random(uint64_t key, uint64_t stream = 0) : key_(key), stream_(stream) {}

  uint64_t next_u64() {
    const auto words = philox(key_, position_++, stream_);
    return uint64_t{words[0]} | uint64_t{words[1]} << 32;
  }
  // Uniform in [0, bound). REQUIRES: bound > 0. The bias of at most bound / 2^64 does not matter
  // here.
  uint64_t below(uint64_t bound) { return uint64_t(Wide(next_u64()) * bound >> 64); }
  // Uniform in [0, 1).
  double uniform() { return double(next_u64() >> 11) * 0x1.0p-53; }

 private:
  __extension__ using Wide = unsigned __int128;
  uint64_t key_;
  uint64_t stream_;
  uint64_t position_ = 0;
};

}  // namespace base
