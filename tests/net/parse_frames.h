// Feeds a parser as a network would.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "net/wire/frame.h"

namespace net {

inline std::vector<std::byte> frame_of(const Message& message) {
  const FrameHeader header = encode_frame_header(message);
  std::vector<std::byte> bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), message.payload->begin(), message.payload->end());
  return bytes;
}

// Adds the messages in `bytes` to `messages`; no read brings more than `piece_bytes()`.
inline base::Result<void> parse_frames(FrameParser& parser, std::span<const std::byte> bytes,
                                       const std::function<size_t()>& piece_bytes,
                                       std::vector<Message>& messages) {
  while (!bytes.empty()) {
    const std::span<std::byte> next = parser.next_bytes();
    const size_t byte_count = std::min({bytes.size(), next.size(), piece_bytes()});
    std::copy_n(bytes.begin(), byte_count, next.begin());
    bytes = bytes.subspan(byte_count);
    auto read = parser.advance(int64_t(byte_count));
    if (!read.ok()) return base::Failure{read.reason()};
    if (read->has_value()) messages.push_back(std::move(**read));
  }
  return {};
}

}  // namespace net
