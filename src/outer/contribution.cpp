#include "outer/contribution.h"

#include <algorithm>
#include <atomic>

namespace outer {
namespace {

// Payload and whether it says what it should.
std::pair<net::Bytes, bool> encode(std::span<const float> values, const Codec& codec) {
  const int64_t bytes = codec.encoded_bytes(int64_t(values.size()));
  auto payload = std::make_shared<std::vector<std::byte>>(net::new_contribution(bytes));
  const auto encoded = std::span(*payload).subspan(size_t(net::kContributionOffset));
  const bool is_encoded = codec.encode(values, encoded).ok();
  return {std::move(payload), is_encoded};
}

}  // namespace

Contribution make_contribution(const FragmentRecord& record, const LocalSlices& local,
                               const Codec& codec) {
  Contribution contribution;
  contribution.payloads.resize(size_t(record.chunk_count()));
  std::atomic<bool> is_whole = true;
  local.for_each_chunk(record, [&](int64_t chunk) {
    const Slice slice = record.chunk(chunk);
    std::vector<float> values(static_cast<size_t>(slice.count));
    local.read(record, slice, values);
    const std::span<const float> exact = part_of(record.parameters, slice);
    std::vector<float> outer(exact.begin(), exact.end());
    local.round(outer);
    for (size_t i = 0; i < values.size(); ++i) values[i] = outer[i] - values[i];
    auto [payload, is_encoded] = encode(values, codec);
    if (!is_encoded) is_whole = false;
    contribution.payloads[size_t(chunk)] = std::move(payload);
  });
  contribution.is_whole = is_whole;
  if (contribution.is_whole) return contribution;
  for (int64_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const std::vector<float> zeros(static_cast<size_t>(record.chunk(chunk).count));
    auto [payload, is_encoded] = encode(zeros, codec);
    CHECK(is_encoded, "codec {} cannot encode zeros", codec.name());
    contribution.payloads[size_t(chunk)] = std::move(payload);
  }
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
