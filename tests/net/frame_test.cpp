// Frames cut at every place, and frames that lie. The lies are told with correct checksums where a
// checksum would otherwise hide what is tested.
#include "net/wire/frame.h"

#include <cstring>

#include "base/hash.h"
#include "net/parse_frames.h"
#include "net/sample_payloads.h"
#include "support/catch.h"

using namespace net;

namespace {

Bytes random_bytes(size_t byte_count, uint64_t seed) {
  base::Random random(seed);
  std::vector<std::byte> bytes(byte_count);
  for (std::byte& byte : bytes) byte = std::byte(uint8_t(random.next_u64()));
  return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

Message sample_message(MessageType type, Bytes payload) {
  return {.type = type,
          .run = 0x1122334455667788,
          .source = 3,
          .authority =
              {.term = 1, .epoch = 1ull << 40, .round = 7, .attempt = 2, .fragment = 5, .chunk = 9},
          .payload = std::move(payload)};
}

bool is_same(const Message& a, const Message& b) {
  return a.type == b.type && a.run == b.run && a.source == b.source && a.authority == b.authority &&
         *a.payload == *b.payload;
}

// Overwrites a number in a frame.
template <class T>
void set(std::vector<std::byte>& frame, size_t offset, T value) {
  std::memcpy(frame.data() + offset, &value, sizeof(value));
}

// Makes a changed header's checksum right again.
void sign_header(std::vector<std::byte>& frame) {
  set(frame, 8, uint32_t(0));
  set(frame, 8, base::crc32c(std::span(frame).first(64)));
}

std::string failure_of(std::span<const std::byte> bytes,
                       FrameParser::Chunks chunks = FrameParser::Chunks::kAccepted) {
  FrameParser parser(chunks);
  std::vector<Message> messages;
  const auto read = parse_frames(
      parser, bytes, [] { return size_t(-1); }, messages);
  REQUIRE(messages.empty());
  if (read.ok()) return "";
  // A failure is final, and the parser wants nothing more.
  REQUIRE(parser.next_bytes().empty());
  REQUIRE(parser.advance(1).reason() == read.reason());
  return read.reason();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("frames survive every split") {
  const std::vector<Message> sent = {
      sample_message(MessageType::kHello, encode(sample_hello())),
      sample_message(MessageType::kAbort, random_bytes(0, 0)),
      sample_message(MessageType::kChunk, random_bytes(100, 1)),
  };
  std::vector<std::byte> stream;
  for (const Message& message : sent) {
    const auto frame = frame_of(message);
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  for (size_t split = 0; split <= stream.size(); ++split) {
    INFO("split at " << split);
    FrameParser parser(FrameParser::Chunks::kAccepted);
    std::vector<Message> received;
    const auto whole = [] { return size_t(-1); };
    REQUIRE(parse_frames(parser, std::span(stream).first(split), whole, received).ok());
    REQUIRE(parse_frames(parser, std::span(stream).subspan(split), whole, received).ok());
    REQUIRE(parser.is_between_frames());
    REQUIRE(received.size() == sent.size());
    for (size_t i = 0; i < sent.size(); ++i) REQUIRE(is_same(received[i], sent[i]));
  }
}

TEST_CASE("frames survive random pieces") {
  const uint64_t seed = 4;
  INFO("seed " << seed);
  base::Random random(seed);
  FrameParser parser(FrameParser::Chunks::kAccepted);
  for (int i = 0; i < 200; ++i) {
    const Message sent =
        sample_message(MessageType::kChunk, random_bytes(size_t(random.below(5000)), seed));
    const uint64_t piece_bytes_max = 1 + random.below(700);
    std::vector<Message> received;
    const auto piece_bytes = [&] { return size_t(1 + random.below(piece_bytes_max)); };
    REQUIRE(parse_frames(parser, frame_of(sent), piece_bytes, received).ok());
    REQUIRE(received.size() == 1);
    REQUIRE(is_same(received[0], sent));
  }
}

TEST_CASE("the header has the documented layout") {
  const auto frame = frame_of(sample_message(MessageType::kWant, random_bytes(1, 5)));
  const auto number = [&](size_t offset, size_t byte_count) {
    uint64_t value = 0;
    for (size_t i = byte_count; i-- > 0;) value = value << 8 | uint8_t(frame[offset + i]);
    return value;
  };
  REQUIRE(std::memcmp(frame.data(), "ATL1", 4) == 0);
  REQUIRE(number(4, 1) == kFrameVersion);
  REQUIRE(number(5, 1) == 0);
  REQUIRE(number(6, 2) == 33);
  REQUIRE(number(12, 4) == 1);
  REQUIRE(number(16, 8) == 0x1122334455667788);
  REQUIRE(number(24, 8) == 1ull << 40);
  REQUIRE(number(32, 8) == 7);
  REQUIRE(number(40, 4) == 1);
  REQUIRE(number(44, 4) == 2);
  REQUIRE(number(48, 4) == 5);
  REQUIRE(number(52, 4) == 9);
  REQUIRE(number(56, 4) == 3);
  REQUIRE(number(60, 4) == base::crc32c(std::span(frame).subspan(64)));
}

TEST_CASE("the largest payloads are taken, larger ones are not") {
  for (const auto& [type, bytes_max] : {std::pair(MessageType::kChunk, kDataBytesMax),
                                        std::pair(MessageType::kOpen, kControlBytesMax)}) {
    auto frame = frame_of(sample_message(type, random_bytes(size_t(bytes_max), 6)));
    FrameParser parser(FrameParser::Chunks::kAccepted);
    std::vector<Message> received;
    REQUIRE(parse_frames(
                parser, frame, [] { return size_t(-1); }, received)
                .ok());
    REQUIRE(received.size() == 1);

    for (const uint32_t payload_bytes : {uint32_t(bytes_max) + 1, 0xffffffffu}) {
      set(frame, 12, payload_bytes);
      sign_header(frame);
      REQUIRE(contains(failure_of(std::span(frame).first(64)), "the limit is"));
    }
  }
}

TEST_CASE("chunks are refused by who did not ask") {
  const auto frame = frame_of(sample_message(MessageType::kChunk, random_bytes(10, 7)));
  REQUIRE(contains(failure_of(frame, FrameParser::Chunks::kRefused), "asked"));
}

TEST_CASE("chunks are taken after an Offer") {
  FrameParser parser(FrameParser::Chunks::kRefused);
  const auto feed = [&](const Message& message) {
    for (const std::byte byte : frame_of(message)) {
      parser.next_bytes().front() = byte;
      const auto read = parser.advance(1);
      if (!read.ok()) return read.reason();
    }
    return std::string();
  };
  REQUIRE(feed(sample_message(MessageType::kOffer, random_bytes(8, 7))) == "");
  REQUIRE(feed(sample_message(MessageType::kChunk, random_bytes(10, 7))) == "");
}

TEST_CASE("strangers are recognised by their first bytes") {
  const std::string request = "GET / HTTP/1.1\r\n";
  REQUIRE(contains(failure_of(std::as_bytes(std::span(request))), "Atoll"));
  REQUIRE(contains(failure_of(std::as_bytes(std::span(request).first(1))), "Atoll"));
  // The right magic number, but of another release: no matter what else the header says.
  auto frame = frame_of(sample_message(MessageType::kHello, random_bytes(1, 8)));
  set(frame, 4, uint8_t(kFrameVersion + 1));
  REQUIRE(contains(failure_of(std::span(frame).first(5)), "same release"));
}

TEST_CASE("unknown types and flags are refused") {
  for (const uint16_t type : {0, 15, 41, 48, 0xffff}) {
    auto frame = frame_of(sample_message(MessageType::kHello, random_bytes(1, 8)));
    set(frame, 6, type);
    sign_header(frame);
    REQUIRE(contains(failure_of(frame), "type"));
  }
  auto frame = frame_of(sample_message(MessageType::kHello, random_bytes(1, 8)));
  set(frame, 5, uint8_t(1));
  sign_header(frame);
  REQUIRE(contains(failure_of(frame), "flags"));
}

TEST_CASE("a flipped bit anywhere is noticed") {
  const auto frame = frame_of(sample_message(MessageType::kReady, random_bytes(16, 9)));
  for (size_t bit = 0; bit < frame.size() * 8; ++bit) {
    INFO("bit " << bit);
    auto broken = frame;
    broken[bit / 8] ^= std::byte(1 << (bit % 8));
    REQUIRE(!failure_of(broken).empty());
  }
}
