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

using Payload = std::vector<std::byte>;

Payload zeros(const Codec& codec, int64_t element_count) {
  Payload payload = new_payload(codec, element_count);
  const std::vector<float> values(static_cast<size_t>(element_count));
  CHECK(codec.encode(values, encoded_part(payload)).ok(), "codec {} cannot encode zeros",
        codec.name());
  return payload;
}

std::vector<net::Bytes> shared(std::vector<Payload> payloads) {
  std::vector<net::Bytes> all;
  for (Payload& payload : payloads)
    all.push_back(std::make_shared<const Payload>(std::move(payload)));
  return all;
}

Contribution sealed(std::vector<Payload> payloads, std::span<const base::Digest> digests) {
  const base::Digest root = net::seal_contributions(payloads, digests);
  return {.payloads = shared(std::move(payloads)), .root = root};
}

std::vector<Payload> split(const FragmentRecord& record, std::span<const std::byte> encoded,
                           const Codec& codec) {
  const auto fail = [](const std::string& reason) {
    return base::bad_input("a contribution of the checkpoint: " + reason,
                           "was it made with another outer.codec?");
  };
  std::vector<Payload> payloads;
  size_t first = 0;
  for (int64_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const int64_t count = record.chunk(chunk).count;
    const auto bytes = size_t(codec.encoded_bytes(count));
    if (encoded.size() - first < bytes) throw fail("it is too short");
    const auto part = encoded.subspan(first, bytes);
    if (const auto checked = codec.check(part, count); !checked) throw fail(checked.reason());
    payloads.push_back(net::new_contribution(int64_t(bytes)));
    std::ranges::copy(part, encoded_part(payloads.back()).begin());
    first += bytes;
  }
  if (first != encoded.size()) throw fail("it is too long");
  return payloads;
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
  std::vector<Payload> payloads(size_t(record.chunk_count()));
  std::vector<base::Digest> digests(payloads.size());
  std::atomic<bool> is_whole = true;
  local.for_each_chunk(record, [&](int64_t chunk, std::span<float> scratch) {
    const Slice slice = record.chunk(chunk);
    Payload payload = new_payload(codec, slice.count);
    if (!encode_chunk(record, slice, local, scratch, codec, encoded_part(payload))) {
      is_whole = false;
    }
    digests[size_t(chunk)] = net::contribution_digest(payload);
    payloads[size_t(chunk)] = std::move(payload);
  });
  for (int64_t chunk = 0; !is_whole && chunk < record.chunk_count(); ++chunk) {
    payloads[size_t(chunk)] = zeros(codec, record.chunk(chunk).count);
    digests[size_t(chunk)] = net::contribution_digest(payloads[size_t(chunk)]);
  }
  Contribution contribution = sealed(std::move(payloads), digests);
  contribution.is_whole = is_whole;
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
  return shared(split(record, encoded, codec));
}

Contribution restore_contribution(const FragmentRecord& record, std::span<const std::byte> encoded,
                                  const Codec& codec) {
  std::vector<Payload> payloads = split(record, encoded, codec);
  std::vector<base::Digest> digests;
  for (const Payload& payload : payloads) digests.push_back(net::contribution_digest(payload));
  return sealed(std::move(payloads), digests);
}

}  // namespace outer
