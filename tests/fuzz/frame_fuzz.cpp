// Fuzz target for everything that reads bytes from the network: the frame parser and the decoder of
// every payload. What must hold, besides that nothing crashes: a parser does not care how its bytes
// are split, and what a decoder takes for a message is, encoded, those bytes again.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -Itests
//     tests/fuzz/frame_fuzz.cpp src/net/wire/{buffer_pool,frame,message,types,wire}.cpp
//     src/base/{error,hash}.cpp -lfmt -lcrypto -o frame_fuzz
//   ./frame_fuzz
//
// The first byte of an input selects: 0 a stream of frames, 1 the same with checksums that are made
// right (else hardly any input would get past them), from 2 on a decoder.
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "fuzz/target.h"
#include "net/parse_frames.h"
#include "net/sample_payloads.h"

namespace net {
namespace {

struct Parsed {
  std::vector<Message> messages;
  std::string failure;
};

Parsed parse(std::span<const std::byte> bytes, size_t piece_bytes) {
  Parsed parsed;
  FrameParser parser(FrameParser::Chunks::kAccepted);
  const auto pieces = [=] { return piece_bytes; };
  const auto result = parse_frames(parser, bytes, pieces, parsed.messages);
  if (!result.ok()) parsed.failure = result.reason();
  return parsed;
}

void check_frames(std::span<const std::byte> bytes) {
  const Parsed whole = parse(bytes, size_t(-1));
  for (const size_t piece_bytes : {size_t(1), size_t(7), size_t(64)}) {
    const Parsed pieces = parse(bytes, piece_bytes);
    CHECK(pieces.failure == whole.failure, "{} / {}", pieces.failure, whole.failure);
    CHECK(pieces.messages.size() == whole.messages.size());
    for (size_t i = 0; i < whole.messages.size(); ++i) {
      CHECK(frame_of(pieces.messages[i]) == frame_of(whole.messages[i]));
    }
  }
}

template <class T>
T number_at(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

// Gives the first frame its magic number, version, and the checksums that belong to what it says.
void sign(std::span<std::byte> bytes) {
  constexpr size_t kHeaderBytes = size_t(kFrameHeaderBytes);
  if (bytes.size() < kHeaderBytes) return;
  std::memcpy(bytes.data(), "ATL1\x01", 5);
  const size_t payload_bytes = number_at<uint32_t>(bytes, 12);
  if (bytes.size() - kHeaderBytes >= payload_bytes) {
    const uint32_t checksum = base::crc32c(bytes.subspan(kHeaderBytes, payload_bytes));
    std::memcpy(bytes.data() + 60, &checksum, sizeof(checksum));
  }
  std::memset(bytes.data() + 8, 0, 4);
  const uint32_t checksum = base::crc32c(bytes.first(kHeaderBytes));
  std::memcpy(bytes.data() + 8, &checksum, sizeof(checksum));
}

void check_decoder(Recode recode, std::span<const std::byte> bytes) {
  const auto again = recode(bytes);
  CHECK(!again.ok() || std::ranges::equal(**again, bytes));
}

void check_input(std::span<const std::byte> input) {
  if (input.empty()) return;
  const auto selector = size_t(input[0]);
  std::vector<std::byte> bytes(input.begin() + 1, input.end());
  static const std::vector<Recode> recodes = all_recodes();
  if (selector == 1) sign(bytes);
  if (selector < 2) {
    check_frames(bytes);
  } else {
    check_decoder(recodes[(selector - 2) % recodes.size()], bytes);
  }
}

}  // namespace
}  // namespace net

// Each sample payload alone for its decoder, and in a frame for the parser.
std::vector<FuzzInput> valid_fuzz_inputs() {
  std::vector<FuzzInput> inputs;
  const auto samples = net::sample_payloads();
  FuzzInput stream;
  for (size_t i = 0; i < samples.size(); ++i) {
    inputs.push_back(with_selector(2 + i, *samples[i].bytes));
    const FuzzInput frame =
        net::frame_of({.type = net::MessageType::kChunk, .payload = samples[i].bytes});
    inputs.push_back(with_selector(0, frame));
    inputs.push_back(with_selector(1, frame));
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  inputs.push_back(with_selector(0, stream));
  return inputs;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t byte_count) {
  net::check_input(std::as_bytes(std::span(data, byte_count)));
  return 0;
}
