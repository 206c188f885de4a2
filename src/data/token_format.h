// What the reader and the writer of a token dataset share; docs/formats/token-dataset.md has every
// byte.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace data {

static_assert(std::endian::native == std::endian::little,
              "the files are little endian and are mapped as they are");

inline constexpr std::string_view kIndexMagic{"MMIDIDX\0\0", 9};
inline constexpr uint64_t kIndexVersion = 1;
inline constexpr int64_t kIndexHeaderBytes = 9 + 8 + 1 + 8 + 8;
inline constexpr int64_t kVocabularyMax = int64_t{1} << 31;  // Ids are int32.

// The codes are those of Megatron.
enum class TokenType : uint8_t { kUint8 = 1, kInt16 = 3, kInt32 = 4, kUint16 = 8 };

// Bytes per token; 0 for a code that is not in the list.
constexpr int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::kUint8:
      return 1;
    case TokenType::kInt16:
    case TokenType::kUint16:
      return 2;
    case TokenType::kInt32:
      return 4;
  }
  return 0;
}

}  // namespace data
