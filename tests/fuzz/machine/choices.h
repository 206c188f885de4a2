// What a fuzzer's bytes decide, one after the other. When they are used up every choice is the
// first one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>

namespace net {

class Choices {
 public:
  explicit Choices(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool is_over() const { return bytes_.empty(); }
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : byte() % limit; }  // At most 256.
  bool one_in(uint64_t count) { return below(count) == count - 1; }
  // Small ones mostly, and those at which something may overflow.
  uint64_t number() {
    const uint64_t which = below(16);
    if (which < 13) return below(12);
    if (which == 13) return ~uint64_t{0} - below(3);
    if (which == 14) return uint64_t{1} << below(64);
    return byte() << 8 | byte();
  }
  template <class Container>
  auto& pick(Container& container) {
    return *std::next(std::begin(container), ptrdiff_t(below(std::size(container))));
  }

 private:
  uint64_t byte() {
    if (bytes_.empty()) return 0;
    const auto first = uint64_t(bytes_.front());
    bytes_ = bytes_.subspan(1);
    return first;
  }

  std::span<const std::byte> bytes_;
};

}  // namespace net
