// CRC-32C by instruction or by table, and SHA-256 through OpenSSL, which uses the processor's SHA
// instructions.
#include "base/hash.h"

#include <bit>
#include <cstring>
#include <openssl/evp.h>

#include "base/crc32c.h"

#ifdef __x86_64__
#include <nmmintrin.h>
#endif

namespace base {
namespace {

// "Slicing by 8": tables[k][b] is the CRC of byte b followed by k zero bytes, so that eight bytes
// are folded in with eight independent look-ups. 0x82F63B78 is the Castagnoli polynomial, bits
// reversed.
using CrcTables = std::array<std::array<uint32_t, 256>, 8>;

constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78 : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr CrcTables kCrcTables = make_crc_tables();

// Table look-ups and parsing below take bytes in memory order for the low bits first.
static_assert(std::endian::native == std::endian::little);

uint64_t load_u64(const std::byte* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

}  // namespace

uint32_t crc32c_by_table(std::span<const std::byte> bytes, uint32_t seed) {
  uint32_t crc = ~seed;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    const uint64_t word = load_u64(&bytes[i]) ^ crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kCrcTables[7 - k][(word >> (8 * k)) & 0xFF];
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ kCrcTables[0][(crc ^ uint32_t(bytes[i])) & 0xFF];
  return ~crc;
}

#ifdef __x86_64__

bool has_crc32c_instruction() {
  return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) uint32_t crc32c_by_instruction(std::span<const std::byte> bytes,
                                                                 uint32_t seed) {
  uint64_t crc = ~seed;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) crc = _mm_crc32_u64(crc, load_u64(&bytes[i]));
  for (; i < bytes.size(); ++i) crc = _mm_crc32_u8(uint32_t(crc), uint8_t(bytes[i]));
  return ~uint32_t(crc);
}

#else

bool has_crc32c_instruction() {
  return false;
}

uint32_t crc32c_by_instruction(std::span<const std::byte> bytes, uint32_t seed) {
  return crc32c_by_table(bytes, seed);
}

#endif

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed) {
  static const bool use_instruction = has_crc32c_instruction();
  return use_instruction ? crc32c_by_instruction(bytes, seed) : crc32c_by_table(bytes, seed);
}

std::string Digest::hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Result<Digest> parse_digest(const std::string& hex) {
  Digest digest;
  if (hex.size() != 2 * digest.bytes.size()) {
    return Failure{
        fmt::format("a digest has 64 hexadecimal digits, found {} characters", hex.size())};
  }
  for (size_t i = 0; i < hex.size(); ++i) {
    const char c = hex[i];
    int digit = 0;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else {
      return Failure{fmt::format("a digest has hexadecimal digits only, found byte {} at {}",
                                 int(uint8_t(c)), i)};
    }
    digest.bytes[i / 2] = uint8_t(digest.bytes[i / 2] << 4 | digit);
  }
  return digest;
}

Sha256::Sha256() {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  CHECK(context != nullptr && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1);
  context_ = context;
}

Sha256::~Sha256() {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_));
}

void Sha256::update(std::span<const std::byte> bytes) {
  CHECK(context_ != nullptr, "update() after finish()");
  auto* context = static_cast<EVP_MD_CTX*>(context_);
  CHECK(EVP_DigestUpdate(context, bytes.data(), bytes.size()) == 1);
}

Digest Sha256::finish() {
  CHECK(context_ != nullptr, "finish() twice");
  auto* context = static_cast<EVP_MD_CTX*>(context_);
  Digest digest;
  unsigned int size = 0;
  CHECK(EVP_DigestFinal_ex(context, digest.bytes.data(), &size) == 1 && size == 32);
  EVP_MD_CTX_free(context);
  context_ = nullptr;
  return digest;
}

Digest sha256(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace base
