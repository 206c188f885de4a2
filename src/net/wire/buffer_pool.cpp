#include "net/wire/buffer_pool.h"

#include <algorithm>
#include <utility>

namespace net {
namespace {

// Smaller ones cost nothing worth the trouble.
constexpr size_t kBytesMin = 64 * 1024;

}  // namespace

std::shared_ptr<BufferPool> BufferPool::create(int64_t kept_bytes_max) {
  return std::shared_ptr<BufferPool>(new BufferPool(kept_bytes_max));
}

// A buffer of more than twice the size would waste the rest for as long as it is held.
std::vector<std::byte> BufferPool::take(size_t byte_count) {
  std::vector<std::byte> buffer;
  if (byte_count >= kBytesMin) {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(kept_, [&](const auto& kept) {
      return kept.capacity() >= byte_count && kept.capacity() / 2 <= byte_count;
    });
    if (found != kept_.end()) {
      std::swap(*found, kept_.back());
      buffer = std::move(kept_.back());
      kept_.pop_back();
      kept_bytes_ -= int64_t(buffer.capacity());
    }
  }
  buffer.resize(byte_count);
  return buffer;
}

Bytes BufferPool::share(std::vector<std::byte> buffer) {
  if (buffer.size() < kBytesMin)
    return std::make_shared<const std::vector<std::byte>>(std::move(buffer));
  auto owned = std::make_unique<std::vector<std::byte>>(std::move(buffer));
  const auto let_go = [pool = shared_from_this()](std::vector<std::byte>* released) {
    const std::unique_ptr<std::vector<std::byte>> owner(released);
    pool->give_back(std::move(*released));
  };
  return std::shared_ptr<std::vector<std::byte>>(owned.release(), let_go);
}

void BufferPool::give_back(std::vector<std::byte> buffer) {
  const std::lock_guard lock(mutex_);
  const auto byte_count = int64_t(buffer.capacity());
  if (kept_bytes_ + byte_count > kept_bytes_max_) return;
  kept_bytes_ += byte_count;
  kept_.push_back(std::move(buffer));
}

int64_t BufferPool::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_bytes_;
}

}  // namespace net
