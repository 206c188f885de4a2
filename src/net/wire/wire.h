// Integers, texts and lists as bytes: what message.cpp and frame.cpp are made of. Everything is
// little endian, without padding, and written byte by byte, so that it does not depend on the
// machine.
//
// The two classes have the same methods, so that one description of a struct's fields serves both
// directions. They differ in who is to blame: what a reader refuses is a Failure, what a writer
// refuses is a bug of ours.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/hash.h"

namespace net {

template <class T>
concept WireNumber = std::is_integral_v<T> || std::is_enum_v<T>;

// A text goes into logs and JSON, so it is UTF-8 without control characters (RFC 3629).
bool is_printable(std::string_view text);
// The nearest printable text of at most `bytes_max` bytes.
std::string make_printable(std::string_view text, int64_t bytes_max);

class WireWriter {
 public:
  void require(bool condition, const char* what) { CHECK(condition, "cannot send {}", what); }

  template <WireNumber T>
  void number(const T& value) {
    using Unsigned = std::make_unsigned_t<T>;
    for (size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(std::byte(uint8_t(Unsigned(value) >> (8 * i))));
    }
  }

  // A loss that is not a number any more must not cost its sender the link: it travels as the
  // largest one.
  void real(float value) {
    if (!std::isfinite(value)) value = FLT_MAX;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    number(bits);
  }

  void text(const std::string& value, int64_t bytes_max) {
    const std::string printable = make_printable(value, bytes_max);
    number(uint16_t(printable.size()));
    append(std::as_bytes(std::span(printable)));
  }

  void digest(const base::Digest& value) { append(std::as_bytes(std::span(value.bytes))); }

  // `each(*this, entry)` writes one entry.
  template <class T, class Each>
  void list(std::vector<T>& values, int64_t count_max, const Each& each) {
    require(int64_t(values.size()) <= count_max, "a list with so many entries");
    number(uint32_t(values.size()));
    for (T& value : values) each(*this, value);
  }

  std::vector<std::byte> finish() { return std::move(bytes_); }

 private:
  void append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }

  std::vector<std::byte> bytes_;
};

// After the first failure every value reads as zero and every list as empty.
class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  void require(bool condition, const char* what) {
    if (!condition) fail(what);
  }

  template <WireNumber T>
  void number(T& value) {
    using Unsigned = std::make_unsigned_t<T>;
    Unsigned bits = 0;
    const auto bytes = take(sizeof(T));
    for (size_t i = 0; i < bytes.size(); ++i) {
      bits = Unsigned(bits | Unsigned(Unsigned(uint8_t(bytes[i])) << (8 * i)));
    }
    value = T(bits);
  }

  void real(float& value) {
    uint32_t bits = 0;
    number(bits);
    std::memcpy(&value, &bits, sizeof(bits));
    require(std::isfinite(value), "a number that is not finite");
  }

  void text(std::string& value, int64_t bytes_max) {
    uint16_t byte_count = 0;
    number(byte_count);
    require(byte_count <= bytes_max, "a text that is too long");
    const auto bytes = take(byte_count);
    value.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    require(is_printable(value), "a text that is not printable UTF-8");
  }

  void digest(base::Digest& value) {
    const auto bytes = take(value.bytes.size());
    if (!bytes.empty()) std::memcpy(value.bytes.data(), bytes.data(), bytes.size());
  }

  template <class T, class Each>
  void list(std::vector<T>& values, int64_t count_max, const Each& each) {
    uint32_t count = 0;
    number(count);
    require(count <= count_max, "a list that is too long");
    require(count <= rest_.size(),
            "a list that is longer than the message");  // An entry has a byte or more.
    values.resize(failed() ? 0 : count);
    for (T& value : values) each(*this, value);
  }

  bool failed() const { return !reason_.empty(); }
  // Succeeds if nothing failed and nothing is left.
  base::Result<void> finish() {
    require(rest_.empty(), "bytes after the end of the message");
    if (failed()) return base::Failure{reason_};
    return {};
  }

 private:
  void fail(const char* what) {
    if (reason_.empty()) reason_ = what;
    rest_ = {};
  }

  // Empty if there are fewer.
  std::span<const std::byte> take(size_t count) {
    if (count > rest_.size()) {
      fail("a message that ends too early");
      return {};
    }
    const auto bytes = rest_.first(count);
    rest_ = rest_.subspan(count);
    return bytes;
  }

  std::span<const std::byte> rest_;
  std::string reason_;
};

}  // namespace net
