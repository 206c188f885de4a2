// Offsets in the header, and the order of the checks: magic number and version as soon as they are
// there, for whoever speaks something else altogether; the header's checksum before any other field
// is believed; limits before the payload is allocated.
#include "net/wire/frame.h"

#include <algorithm>

#include "base/hash.h"
#include "net/wire/wire.h"

namespace net {
namespace {

constexpr std::array kMagic = {std::byte('A'), std::byte('T'), std::byte('L'), std::byte('1')};
// How a handshake of TLS begins (RFC 8446, section 5.1).
constexpr std::byte kTlsHandshake{0x16};
constexpr size_t kVersionOffset = 4;
constexpr size_t kHeaderChecksumOffset = 8;

bool is_known(MessageType type) {
  switch (type) {
    case MessageType::kHello:
    case MessageType::kSynced:
    case MessageType::kHeartbeat:
    case MessageType::kReady:
    case MessageType::kDone:
    case MessageType::kApplied:
    case MessageType::kLeave:
    case MessageType::kNeedSamples:
    case MessageType::kAudited:
    case MessageType::kMeasured:
    case MessageType::kAudit:
    case MessageType::kWelcome:
    case MessageType::kReject:
    case MessageType::kCatchUp:
    case MessageType::kStart:
    case MessageType::kMembership:
    case MessageType::kOpen:
    case MessageType::kReown:
    case MessageType::kCommit:
    case MessageType::kAbort:
    case MessageType::kHeartbeatReply:
    case MessageType::kSamples:
    case MessageType::kKeys:
    case MessageType::kRedirect:
    case MessageType::kStandBy:
    case MessageType::kDataHello:
    case MessageType::kWant:
    case MessageType::kChunk:
    case MessageType::kGone:
    case MessageType::kNotice:
    case MessageType::kDialBack:
    case MessageType::kDialBackReply:
    case MessageType::kOffer:
    case MessageType::kInvite:
    case MessageType::kVisits:
      return true;
  }
  return false;
}

// The header as numbers, in the order in which they travel.
struct Fields {
  std::array<std::byte, 4> magic = kMagic;
  uint8_t version = kFrameVersion;
  uint8_t flags = 0;
  MessageType type = MessageType::kHello;
  uint32_t header_checksum = 0;  // Of the header with zeros in its place.
  uint32_t payload_bytes = 0;
  uint64_t run = 0;
  Authority authority;
  PeerId source = kNobody;
  uint32_t payload_checksum = 0;
};

template <class Wire>
void describe(Wire& wire, Fields& fields) {
  for (std::byte& letter : fields.magic) wire.number(letter);
  wire.number(fields.version);
  wire.number(fields.flags);
  wire.number(fields.type);
  wire.number(fields.header_checksum);
  wire.number(fields.payload_bytes);
  wire.number(fields.run);
  wire.number(fields.authority.epoch);
  wire.number(fields.authority.round);
  wire.number(fields.authority.term);
  wire.number(fields.authority.attempt);
  wire.number(fields.authority.fragment);
  wire.number(fields.authority.chunk);
  wire.number(fields.source);
  wire.number(fields.payload_checksum);
}

FrameHeader to_bytes(Fields fields) {
  WireWriter wire;
  describe(wire, fields);
  const std::vector<std::byte> bytes = wire.finish();
  FrameHeader header;
  CHECK(bytes.size() == header.size(), "{}", bytes.size());
  std::ranges::copy(bytes, header.begin());
  return header;
}

uint32_t header_checksum(FrameHeader header) {
  std::fill_n(header.begin() + kHeaderChecksumOffset, sizeof(uint32_t), std::byte(0));
  return base::crc32c(header);
}

}  // namespace

FrameHeader encode_frame_header(const Message& message) {
  CHECK(message.payload != nullptr);
  return encode_frame_header(message, base::crc32c(*message.payload));
}

FrameHeader encode_frame_header(const Message& message, uint32_t payload_checksum) {
  CHECK(message.payload != nullptr);
  const auto payload_bytes = int64_t(message.payload->size());
  CHECK(payload_bytes <= (message.type == MessageType::kChunk ? kDataBytesMax : kControlBytesMax),
        "a message of type {} with {} bytes", int(message.type), payload_bytes);
  Fields fields{.type = message.type,
                .payload_bytes = uint32_t(payload_bytes),
                .run = message.run,
                .authority = message.authority,
                .source = message.source,
                .payload_checksum = payload_checksum};
  fields.header_checksum = header_checksum(to_bytes(fields));
  return to_bytes(fields);
}

std::span<std::byte> FrameParser::next_bytes() {
  if (failure_) return {};
  if (received_ < kFrameHeaderBytes) return std::span(header_).subspan(size_t(received_));
  return std::span(payload_).subspan(size_t(received_ - kFrameHeaderBytes));
}

base::Result<std::optional<Message>> FrameParser::advance(int64_t byte_count) {
  if (failure_) return *failure_;
  const auto arrived = next_bytes();
  CHECK(byte_count > 0 && byte_count <= int64_t(arrived.size()), "{}", byte_count);
  const bool is_in_header = received_ < kFrameHeaderBytes;
  received_ += byte_count;
  if (is_in_header) {
    if (const auto start = check_start(); !start.ok()) return fail({start.reason()});
    if (received_ < kFrameHeaderBytes) return std::optional<Message>();
    if (const auto header = read_header(); !header.ok()) return fail({header.reason()});
  } else {
    payload_checksum_ = base::crc32c(arrived.first(size_t(byte_count)), payload_checksum_);
  }
  const bool is_complete = received_ == kFrameHeaderBytes + int64_t(payload_.size());
  return is_complete ? finish_frame() : std::optional<Message>();
}

base::Result<void> FrameParser::check_start() const {
  const auto letters =
      std::span(header_).first(size_t(std::min<int64_t>(received_, kMagic.size())));
  if (!std::equal(letters.begin(), letters.end(), kMagic.begin())) {
    if (letters[0] == kTlsHandshake) return base::Failure{"it speaks TLS, and we do not"};
    return base::Failure{"it does not speak Atoll's protocol"};
  }
  const auto version = uint8_t(header_[kVersionOffset]);
  if (received_ > int64_t(kVersionOffset) && version != kFrameVersion) {
    return base::Failure{fmt::format(
        "it speaks version {} of the protocol and we speak {}: all nodes need the same release",
        version, kFrameVersion)};
  }
  return {};
}

base::Result<void> FrameParser::read_header() {
  Fields fields;
  WireReader wire(header_);
  describe(wire, fields);
  if (fields.header_checksum != header_checksum(header_)) {
    return base::Failure{"a frame's header has a wrong checksum"};
  }
  if (fields.flags != 0) {
    return base::Failure{fmt::format("a frame has unknown flags ({})", fields.flags)};
  }
  if (!is_known(fields.type)) {
    return base::Failure{fmt::format("a frame has an unknown type ({})", int(fields.type))};
  }
  const bool is_chunk = fields.type == MessageType::kChunk;
  if (is_chunk && chunks_ == Chunks::kRefused) {
    return base::Failure{"a chunk, where nothing was asked for"};
  }
  const int64_t bytes_max = is_chunk ? kDataBytesMax : kControlBytesMax;
  if (fields.payload_bytes > bytes_max) {
    return base::Failure{fmt::format("a frame of type {} has {} bytes, the limit is {}",
                                     int(fields.type), fields.payload_bytes, bytes_max)};
  }
  message_ = {.type = fields.type,
              .run = fields.run,
              .source = fields.source,
              .authority = fields.authority};
  expected_checksum_ = fields.payload_checksum;
  payload_checksum_ = 0;
  if (pool_) {
    payload_ = pool_->take(fields.payload_bytes);
  } else {
    payload_.resize(fields.payload_bytes);
  }
  return {};
}

base::Result<std::optional<Message>> FrameParser::finish_frame() {
  if (payload_checksum_ != expected_checksum_) {
    return fail({"a frame's payload has a wrong checksum"});
  }
  message_.payload = pool_ ? pool_->share(std::move(payload_))
                           : std::make_shared<const std::vector<std::byte>>(std::move(payload_));
  payload_ = {};
  received_ = 0;
  if (message_.type == MessageType::kOffer) chunks_ = Chunks::kAccepted;
  return std::optional<Message>(std::move(message_));
}

base::Failure FrameParser::fail(base::Failure failure) {
  payload_ = {};
  failure_ = std::move(failure);
  return *failure_;
}

}  // namespace net
