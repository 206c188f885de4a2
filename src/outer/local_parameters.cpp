#include "outer/outer_state.h"

namespace outer {

namespace {

class HeapBuffer final : public backend::Buffer {
 public:
  explicit HeapBuffer(int64_t byte_count) : bytes_(size_t(byte_count)) {}
  void* data() const override { return const_cast<std::byte*>(bytes_.data()); }
  int64_t byte_count() const override { return int64_t(bytes_.size()); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

std::unique_ptr<backend::Buffer> LocalParameters::allocate(int64_t byte_count) {
  return std::make_unique<HeapBuffer>(byte_count);
}

bool LocalParameters::encode_difference(int64_t, int64_t, std::span<const float>,
                                        const Blocks<std::byte>&) {
  CHECK(false, "there is no device");
  return false;
}

void LocalParameters::add(int64_t, int64_t, std::span<const float>,
                          const Blocks<const std::byte>*) {
  CHECK(false, "there is no device");
}

}  // namespace outer
