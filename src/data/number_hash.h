// SHA-256 over numbers, as uint64 each, little endian.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/hash.h"

namespace data {

// Hashes in large pieces.
class NumberHash {
 public:
  void add(uint64_t number) {
    numbers_.push_back(number);
    if (numbers_.size() == 4096) flush();
  }
  base::Digest finish() {
    flush();
    return sha_.finish();
  }

 private:
  void flush() {
    sha_.update(std::as_bytes(std::span(numbers_)));
    numbers_.clear();
  }
  base::Sha256 sha_;
  std::vector<uint64_t> numbers_;
};

}  // namespace data
