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

}  // namespace outer
