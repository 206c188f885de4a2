// Buffers of large payloads, used again: a new one of 1 MiB costs more in page faults and zeroing
// than the bytes that come into it.
//
// Any thread may let go of what was shared; it returns here, up to a bound.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "net/types.h"

namespace net {

class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  static std::shared_ptr<BufferPool> create(int64_t kept_bytes_max);

  // A buffer of this size with any content.
  std::vector<std::byte> take(size_t byte_count);
  // A buffer, filled. It comes back when nobody holds it any more.
  Bytes share(std::vector<std::byte> buffer);

  int64_t kept_bytes() const;

 private:
  explicit BufferPool(int64_t kept_bytes_max) : kept_bytes_max_(kept_bytes_max) {}
  void give_back(std::vector<std::byte> buffer);

  const int64_t kept_bytes_max_;
  mutable std::mutex mutex_;
  std::vector<std::vector<std::byte>> kept_;
  int64_t kept_bytes_ = 0;
};

}  // namespace net
