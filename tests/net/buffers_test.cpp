// Buffers that are used again, and checksums that are made once.
#include <thread>

#include "base/hash.h"
#include "net/transport/shared_checksums.h"
#include "net/wire/buffer_pool.h"
#include "net/wire/frame.h"
#include "support/catch.h"

namespace net {
namespace {

constexpr size_t kLarge = 1 << 20;

TEST_CASE("buffers: what nobody holds any more is used again") {
  const auto pool = BufferPool::create(2 * kLarge);
  Bytes first = pool->share(pool->take(kLarge));
  const std::byte* const place = first->data();
  Bytes copy = first;
  first.reset();
  REQUIRE(pool->take(kLarge).data() != place);  // It is still held.
  std::thread([&] { copy.reset(); }).join();
  REQUIRE(pool->kept_bytes() == kLarge);
  const auto again = pool->take(kLarge - 1000);
  REQUIRE(again.data() == place);
  REQUIRE(again.size() == kLarge - 1000);
  REQUIRE(pool->kept_bytes() == 0);
}

TEST_CASE("buffers: a large one is not spent on little, and not more are kept than may be") {
  const auto pool = BufferPool::create(2 * kLarge);
  std::vector<Bytes> held;
  for (int i = 0; i < 5; ++i) held.push_back(pool->share(pool->take(kLarge)));
  held.clear();
  REQUIRE(pool->kept_bytes() == 2 * kLarge);
  REQUIRE(pool->take(100).size() == 100);
  REQUIRE(pool->take(kLarge / 4).capacity() == kLarge / 4);
  REQUIRE(pool->kept_bytes() == 2 * kLarge);
}

TEST_CASE("buffers: what is shared may outlive the pool's owner") {
  auto pool = BufferPool::create(kLarge);
  const Bytes bytes = pool->share(std::vector<std::byte>(kLarge, std::byte(7)));
  pool.reset();
  REQUIRE(bytes->back() == std::byte(7));
}

TEST_CASE("buffers: a frame in a used buffer has only its own bytes") {
  const auto pool = BufferPool::create(4 * kLarge);
  FrameParser parser(FrameParser::Chunks::kAccepted, pool);
  std::vector<const std::byte*> places;
  for (const size_t size : {kLarge, kLarge - 7, kLarge - 3}) {
    const auto sent = std::make_shared<const std::vector<std::byte>>(size, std::byte(size));
    const Message message{.type = MessageType::kChunk, .source = 0, .payload = sent};
    const FrameHeader header = encode_frame_header(message);
    std::vector<std::byte> frame(header.begin(), header.end());
    frame.insert(frame.end(), sent->begin(), sent->end());
    std::optional<Message> arrived;
    for (std::span<const std::byte> left = frame; !left.empty();) {
      const auto place = parser.next_bytes();
      const size_t count = std::min(place.size(), left.size());
      std::ranges::copy(left.first(count), place.begin());
      left = left.subspan(count);
      arrived = parser.advance(int64_t(count)).value();
    }
    REQUIRE(*arrived->payload == *sent);
    places.push_back(arrived->payload->data());
  }
  REQUIRE(places[0] == places[1]);
  REQUIRE(places[1] == places[2]);
}

TEST_CASE("checksums: one for each payload that several get") {
  SharedChecksums checksums;
  Bytes shared = std::make_shared<const std::vector<std::byte>>(100, std::byte(1));
  const Bytes kept = shared;
  for (int receiver = 0; receiver < 13; ++receiver)
    REQUIRE(checksums.of(shared) == base::crc32c(*shared));
  REQUIRE(checksums.made_count() == 1);
}

TEST_CASE("checksums: nothing is remembered of what is gone, or was sent once") {
  SharedChecksums checksums;
  for (int i = 0; i < 1000; ++i) {
    const Bytes bytes = std::make_shared<const std::vector<std::byte>>(8, std::byte(i));
    REQUIRE(checksums.of(bytes) == base::crc32c(*bytes));
  }
  REQUIRE(checksums.size() == 0);
  for (int i = 0; i < 1000; ++i) {
    const Bytes bytes = std::make_shared<const std::vector<std::byte>>(8, std::byte(i));
    const Bytes kept = bytes;
    REQUIRE(checksums.of(bytes) == base::crc32c(*bytes));
  }
  REQUIRE(checksums.size() <= 64);
}

}  // namespace
}  // namespace net
