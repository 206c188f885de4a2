// Hashes against published vectors: RFC 3720 (CRC-32C), FIPS 180-4 examples (SHA-256), Random123's
// kat_vectors (Philox); and the two CRC routines against each other at every alignment.
#include "base/hash.h"

#include <chrono>
#include <cmath>
#include <vector>

#include "base/bytes_of.h"
#include "base/crc32c.h"
#include "support/catch.h"

using base::crc32c;

namespace {

using Crc = uint32_t (*)(std::span<const std::byte>, uint32_t);

// RFC 3720, appendix B.4.
void check_rfc_vectors(Crc crc) {
  std::vector<std::byte> bytes(32, std::byte{0});
  REQUIRE(crc(bytes, 0) == 0x8A9136AA);
  bytes.assign(32, std::byte{0xFF});
  REQUIRE(crc(bytes, 0) == 0x62A8AB43);
  for (size_t i = 0; i < 32; ++i) bytes[i] = std::byte(i);
  REQUIRE(crc(bytes, 0) == 0x46DD794E);
  for (size_t i = 0; i < 32; ++i) bytes[i] = std::byte(31 - i);
  REQUIRE(crc(bytes, 0) == 0x113FDB5C);
  REQUIRE(crc(bytes_of("123456789"), 0) == 0xE3069283);
  REQUIRE(crc({}, 0) == 0);
}

std::vector<std::byte> random_bytes(size_t count, uint64_t seed) {
  base::Random random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = std::byte(random.below(256));
  return bytes;
}

}  // namespace

TEST_CASE("CRC-32C by table gives the vectors of RFC 3720", "[hash]") {
  check_rfc_vectors(base::crc32c_by_table);
}

TEST_CASE("CRC-32C by instruction gives the vectors of RFC 3720", "[hash]") {
  if (!base::has_crc32c_instruction()) {
    WARN("skipped: this processor has no CRC-32C instruction");
    return;
  }
  check_rfc_vectors(base::crc32c_by_instruction);
}

TEST_CASE("Both CRC-32C routines agree at every alignment and length", "[hash]") {
  if (!base::has_crc32c_instruction()) {
    WARN("skipped: this processor has no CRC-32C instruction");
    return;
  }
  const auto bytes = random_bytes(128, 7);
  for (size_t begin = 0; begin < 16; ++begin) {
    for (size_t count = 0; begin + count <= bytes.size(); ++count) {
      const auto piece = std::span(bytes).subspan(begin, count);
      REQUIRE(base::crc32c_by_table(piece, 0x1234) == base::crc32c_by_instruction(piece, 0x1234));
    }
  }
}

TEST_CASE("CRC-32C goes on from the checksum of the bytes before", "[hash]") {
  const auto bytes = random_bytes(100, 8);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    const auto all = std::span(bytes);
    REQUIRE(crc32c(all.subspan(cut), crc32c(all.first(cut))) == crc32c(all));
  }
}

TEST_CASE("SHA-256 gives the digests of FIPS 180-4", "[hash]") {
  REQUIRE(base::sha256(bytes_of("abc")).hex() ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  REQUIRE(base::sha256({}).hex() ==
          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  REQUIRE(
      base::sha256(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")).hex() ==
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("SHA-256 piece by piece equals SHA-256 at once", "[hash]") {
  const auto bytes = random_bytes(1000, 9);
  base::Sha256 hash;
  for (size_t begin = 0; begin < bytes.size(); begin += 37) {
    hash.update(std::span(bytes).subspan(begin, std::min<size_t>(37, bytes.size() - begin)));
  }
  REQUIRE(hash.finish() == base::sha256(bytes));
}

TEST_CASE("Digests survive the way to text and back", "[hash]") {
  const base::Digest digest = base::sha256(bytes_of("abc"));
  REQUIRE(*base::parse_digest(digest.hex()) == digest);
  REQUIRE(!digest.is_zero());
  REQUIRE(base::Digest{}.is_zero());
  REQUIRE(!base::parse_digest("abc"));
  REQUIRE(!base::parse_digest(std::string(63, '0') + "g"));
  REQUIRE(!base::parse_digest(std::string(65, '0')));
}

TEST_CASE("Philox gives Random123's known answers", "[hash]") {
  using Words = std::array<uint32_t, 4>;
  REQUIRE(base::philox(0, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint64_t ones = ~uint64_t{0};
  REQUIRE(base::philox(ones, ones, ones) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  REQUIRE(base::philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e) ==
          Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("Random numbers stay within their bounds and reach all of them", "[hash]") {
  base::Random random(1, 2);
  std::array<int, 7> seen{};
  double sum = 0;
  for (int i = 0; i < 7000; ++i) {
    const uint64_t number = random.below(7);
    REQUIRE(number < 7);
    ++seen[number];
    const double fraction = random.uniform();
    REQUIRE((fraction >= 0 && fraction < 1));
    sum += fraction;
  }
  for (const int count : seen) REQUIRE(std::abs(count - 1000) < 150);  // 5 standard deviations.
  REQUIRE(std::abs(sum / 7000 - 0.5) < 5 / std::sqrt(12.0 * 7000));
}

TEST_CASE("A random stream depends on key and stream alone", "[hash]") {
  base::Random first(5, 1), again(5, 1), other_stream(5, 2), other_key(6, 1);
  const uint64_t number = first.next_u64();
  REQUIRE(number == again.next_u64());
  REQUIRE(number != other_stream.next_u64());
  REQUIRE(number != other_key.next_u64());
}

TEST_CASE("Speed of the checksums", "[.benchmark][hash]") {
  const auto bytes = random_bytes(16 << 20, 1);
  const auto report = [&](const char* name, const auto& hash) {
    hash();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 8; ++i) hash();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    WARN(name << ": " << 8 * double(bytes.size()) / time.count() * 1e-9 << " GB/s");
  };
  uint32_t crc = 0;
  report("crc32c by table", [&] { crc ^= base::crc32c_by_table(bytes, 0); });
  report("crc32c", [&] { crc ^= crc32c(bytes); });
  report("sha256", [&] { crc ^= base::sha256(bytes).bytes[0]; });
}
