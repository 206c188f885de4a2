#include "outer/contribution.h"

#include <algorithm>
#include <atomic>

namespace outer {
namespace {

std::span<std::byte> encoded_part(std::vector<std::byte>& payload) {
  return std::span(payload).subspan(size_t(net::kContributionOffset));
}

std::vector<std::byte> new_payload(const Codec& codec, int64_t element_count) {
  return net::new_contribution(codec.encoded_bytes(element_count));
}

net::Bytes zeros(const Codec& codec, int64_t element_count) {
  std::vector<std::byte> payload = new_payload(codec, element_count);
  const std::vector<float> values(static_cast<size_t>(element_count));
  CHECK(codec.encode(values, encoded_part(payload)).ok(), "codec {} cannot encode zeros",
        codec.name());
  return std::make_shared<const std::vector<std::byte>>(std::move(payload));
}

// values = outer - values, with the outer parameters as the node's own are rounded.
void subtract_from_outer(const LocalSlices& local, std::span<const float> outer,
                         std::span<float> values) {
  float memory[kPieceElements];
  const std::span<float> rounded(memory, values.size());
  std::ranges::copy(outer, rounded.begin());
  local.round(rounded);
  for (size_t i = 0; i < values.size(); ++i) values[i] = rounded[i] - values[i];
}

// False: a value cannot be encoded.
bool encode_chunk(const FragmentRecord& record, Slice chunk, const LocalSlices& local,
                  std::span<float> scratch, const Codec& codec, std::span<std::byte> encoded) {
  bool is_encoded = true;
  const auto on_device = [&](const DevicePiece& piece) {
    const std::span<const float> outer = part_of(record.parameters, piece.slice);
    is_encoded = local.encode_difference(piece, chunk, outer, codec, encoded) && is_encoded;
  };
  const auto encode_piece = [&](Slice slice, Piece piece, std::span<float> values) {
    subtract_from_outer(local, part_of(record.parameters, slice), values);
    is_encoded = codec.encode_piece(values, piece, encoded).ok() && is_encoded;
  };
  local.for_each_part(record, chunk, codec, on_device, [&](Slice rest) {
    local.for_each_read(record, rest, scratch, [&](Slice part, std::span<float> values) {
      LocalSlices::for_each_piece(chunk, part, values, encode_piece);
    });
  });
  return is_encoded;
}

}  // namespace

Contribution make_contribution(const FragmentRecord& record, const LocalSlices& local,
                               const Codec& codec) {
  Contribution contribution;
  contribution.payloads.resize(size_t(record.chunk_count()));
  std::atomic<bool> is_whole = true;
  local.for_each_chunk(record, [&](int64_t chunk, std::span<float> scratch) {
    const Slice slice = record.chunk(chunk);
    std::vector<std::byte> payload = new_payload(codec, slice.count);
    if (!encode_chunk(record, slice, local, scratch, codec, encoded_part(payload))) {
      is_whole = false;
    }
    contribution.payloads[size_t(chunk)] =
        std::make_shared<const std::vector<std::byte>>(std::move(payload));
  });
  contribution.is_whole = is_whole;
  if (contribution.is_whole) return contribution;
  for (int64_t chunk = 0; chunk < record.chunk_count(); ++chunk)
    contribution.payloads[size_t(chunk)] = zeros(codec, record.chunk(chunk).count);
  return contribution;
}

std::vector<std::byte> join_payloads(const std::vector<net::Bytes>& payloads) {
  std::vector<std::byte> encoded;
  for (const net::Bytes& payload : payloads) {
    encoded.insert(encoded.end(), payload->begin() + net::kContributionOffset, payload->end());
  }
  return encoded;
}

std::vector<net::Bytes> split_payloads(const FragmentRecord& record,
                                       std::span<const std::byte> encoded, const Codec& codec) {
  const auto fail = [](const std::string& reason) {
    return base::bad_input("a contribution of the checkpoint: " + reason,
                           "was it made with another outer.codec?");
  };
  std::vector<net::Bytes> payloads;
  size_t first = 0;
  for (int64_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const int64_t count = record.chunk(chunk).count;
    const auto bytes = size_t(codec.encoded_bytes(count));
    if (encoded.size() - first < bytes) throw fail("it is too short");
    const auto part = encoded.subspan(first, bytes);
    if (const auto checked = codec.check(part, count); !checked) throw fail(checked.reason());
    auto payload = std::make_shared<std::vector<std::byte>>(net::new_contribution(int64_t(bytes)));
    std::ranges::copy(part, payload->begin() + net::kContributionOffset);
    payloads.push_back(std::move(payload));
    first += bytes;
  }
  if (first != encoded.size()) throw fail("it is too long");
  return payloads;
}

}  // namespace outer
