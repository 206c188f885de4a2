// A message on a connection: a header of 64 bytes, then the payload (docs/formats/wire.md).
//
// The parser says where the next bytes belong (next_bytes), its user puts them there and says how
// many they were (advance). So the network reads right into the vector that the message will own,
// and the parser is a pure function of the bytes, however they are split.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "net/message.h"
#include "net/wire/buffer_pool.h"

namespace net {

inline constexpr int64_t kFrameHeaderBytes = 64;
inline constexpr uint8_t kFrameVersion = 1;
using FrameHeader = std::array<std::byte, size_t(kFrameHeaderBytes)>;

// REQUIRES: the payload is not larger than its type may have.
FrameHeader encode_frame_header(const Message& message);
// With the CRC-32C of the payload, where it is known.
FrameHeader encode_frame_header(const Message& message, uint32_t payload_checksum);

class FrameParser {
 public:
  // Who expects no chunks takes none: nobody can make it hold more than kControlBytesMax. From an
  // Offer on they are expected: what follows are answers.
  enum class Chunks { kRefused, kAccepted };
  // Payloads are taken from the pool, if there is one.
  explicit FrameParser(Chunks chunks, std::shared_ptr<BufferPool> pool = nullptr)
      : chunks_(chunks), pool_(std::move(pool)) {}

  // Where the next bytes belong. Empty only after a failure.
  std::span<std::byte> next_bytes();
  // The first `byte_count` bytes of next_bytes() have arrived. Returns a message if they complete
  // one. A failure is final. REQUIRES: 0 < byte_count <= next_bytes().size().
  base::Result<std::optional<Message>> advance(int64_t byte_count);

  bool is_between_frames() const { return received_ == 0; }

 private:
  base::Result<void> check_start() const;
  base::Result<void> read_header();
  base::Result<std::optional<Message>> finish_frame();
  base::Failure fail(base::Failure failure);

  Chunks chunks_;
  const std::shared_ptr<BufferPool> pool_;
  FrameHeader header_{};
  int64_t received_ = 0;  // Of this frame, the header included.
  Message message_;       // What the header said, once it is there.
  std::vector<std::byte> payload_;
  uint32_t payload_checksum_ = 0;  // Of what has arrived, while it is still in the cache.
  uint32_t expected_checksum_ = 0;
  std::optional<base::Failure> failure_;
};

}  // namespace net
