// The trimmed mean, against its definition, against liars, and with too few to trim.
#include <algorithm>
#include <numeric>

#include "codec_fixture.h"
#include "outer/chunk_mean.h"

using namespace outer;
using namespace outer::testing;

namespace {

using Parts = std::vector<net::FragmentStore::Part>;

// Sorted, cut and added up, an element after the other. Ties go by the order of the parts.
Floats trimmed_mean(const std::vector<Floats>& values, const std::vector<int64_t>& weights,
                    int64_t trimmed) {
  const int64_t total = std::accumulate(weights.begin(), weights.end(), int64_t{0});
  std::vector<size_t> voices;
  std::vector<float> factors;
  for (size_t i = 0; i < values.size(); ++i) {
    const double share =
        total > 0 ? double(weights[i]) / double(total) : 1.0 / double(values.size());
    factors.push_back(float(share));
    if (share > 0) voices.push_back(i);
  }
  Floats mean;
  for (size_t k = 0; k < values.front().size(); ++k) {
    std::vector<size_t> order = voices;
    std::ranges::stable_sort(order, {}, [&](size_t i) { return values[i][k]; });
    std::vector<size_t> kept(order.begin() + trimmed, order.end() - trimmed);
    std::ranges::sort(kept);
    volatile float sum = 0, weight = 0;
    for (const size_t i : kept) {
      const volatile float product = factors[i] * values[i][k];
      sum = sum + product;
      weight = weight + factors[i];
    }
    mean.push_back(sum / weight);
  }
  return mean;
}

std::vector<Floats> random_parts(int64_t count, size_t elements) {
  std::vector<Floats> parts;
  for (int64_t n = 0; n < count; ++n) {
    parts.push_back(gaussian_values(int64_t(elements), uint64_t(n) + 5));
    // Whole numbers, so that many are equal.
    for (size_t k = 0; k < elements / 2; ++k) parts.back()[k] = std::round(2 * parts.back()[k]);
  }
  return parts;
}

Parts encoded_parts(const Codec& codec, const std::vector<Floats>& values,
                    const std::vector<int64_t>& weights) {
  Parts parts;
  for (size_t i = 0; i < values.size(); ++i)
    parts.push_back(make_part(net::PeerId(i), weights[i], encode(codec, values[i])));
  return parts;
}

Floats mean_in_fp32(const std::vector<Floats>& values, const std::vector<int64_t>& weights,
                    const MeanRule& rule) {
  const auto codec = make_codec("fp32");
  const auto count = int64_t(values.front().size());
  const ChunkMean found = mean_of(encoded_parts(*codec, values, weights), count, *codec, rule);
  return decode(*codec, found.mean.encoded, values.front().size());
}

const MeanRule kTrimmed{.reach = {}, .trim_share = 0.25};

}  // namespace

TEST_CASE("how many numbers are trimmed", "[outer][trimmed]") {
  const auto counts = [](double share) {
    std::vector<int64_t> counts;
    for (const int64_t voices : {1, 2, 3, 4, 5, 8, 16, 64})
      counts.push_back(MeanRule{.reach = {}, .trim_share = share}.trimmed_count(voices));
    return counts;
  };
  REQUIRE(counts(0) == std::vector<int64_t>{0, 0, 0, 0, 0, 0, 0, 0});
  REQUIRE(counts(0.01) == std::vector<int64_t>{0, 0, 1, 1, 1, 1, 1, 1});
  REQUIRE(counts(0.25) == std::vector<int64_t>{0, 0, 1, 1, 1, 2, 4, 16});
  REQUIRE(counts(0.49) == std::vector<int64_t>{0, 0, 1, 1, 2, 3, 7, 31});
}

TEST_CASE("the bytes of a trimmed mean are those of its definition", "[outer][trimmed]") {
  const size_t elements = 4096 + 700;
  for (const int64_t count : {3, 4, 5, 9, 64}) {
    const std::vector<Floats> values = random_parts(count, elements);
    std::vector<int64_t> even(size_t(count), 100), uneven, none(size_t(count), 0);
    for (int64_t n = 0; n < count; ++n) uneven.push_back(n == 1 ? 0 : 7 + 31 * n);
    for (const auto& weights : {even, uneven, none}) {
      for (const double share : {0.01, 0.25, 0.49}) {
        INFO(count << " parts, share " << share << ", first weight " << weights[0]);
        const MeanRule rule{.reach = {}, .trim_share = share};
        const auto voices = std::ranges::count_if(weights, [](int64_t w) { return w > 0; });
        const int64_t trimmed = rule.trimmed_count(voices > 0 ? voices : count);
        const Floats expected = trimmed_mean(values, weights, trimmed);
        REQUIRE(mean_in_fp32(values, weights, rule) == expected);

        const auto int8 = make_codec("int8");
        std::vector<Floats> decoded;
        for (const Floats& part : values) decoded.push_back(round_trip(*int8, part));
        const ChunkMean found =
            mean_of(encoded_parts(*int8, values, weights), int64_t(elements), *int8, rule);
        REQUIRE(found.mean.encoded == encode(*int8, trimmed_mean(decoded, weights, trimmed)));
      }
    }
  }
}

TEST_CASE("a liar moves a trimmed mean no farther than the honest parts are apart",
          "[outer][trimmed]") {
  const size_t elements = 3000;
  for (const int64_t honest : {2, 3, 7}) {
    std::vector<Floats> values = random_parts(honest, elements);
    std::vector<int64_t> weights(size_t(honest), 100);
    // Numbers that are large, that hide among the others' lengths, and with a weight that the
    // coordinator lets through.
    for (const float size : {3e38f, 1.0f, -1e-3f}) {
      std::vector<Floats> with_liar = values;
      with_liar.push_back(Floats(elements, size));
      std::vector<int64_t> with_its = weights;
      with_its.push_back(1600);
      const Floats mean = mean_in_fp32(with_liar, with_its, kTrimmed);
      for (size_t k = 0; k < elements; ++k) {
        float least = values[0][k], most = values[0][k];
        for (const Floats& part : values) {
          least = std::min(least, part[k]);
          most = std::max(most, part[k]);
        }
        REQUIRE(mean[k] >= std::nextafter(least, -INFINITY));
        REQUIRE(mean[k] <= std::nextafter(most, INFINITY));
      }
    }
  }
}

TEST_CASE("two parts are not trimmed, and no more voices count than have a weight",
          "[outer][trimmed]") {
  const std::vector<Floats> two = random_parts(2, 500), three = random_parts(3, 500);
  REQUIRE(mean_in_fp32(two, {100, 300}, kTrimmed) == mean_in_fp32(two, {100, 300}, {}));
  REQUIRE(mean_in_fp32(three, {100, 300, 0}, kTrimmed) == mean_in_fp32(three, {100, 300, 0}, {}));
}

TEST_CASE("parts close to the largest float are trimmed to numbers", "[outer][trimmed]") {
  const float largest = std::numeric_limits<float>::max();
  std::vector<Floats> values;
  for (int n = 0; n < 5; ++n) values.push_back({largest, n % 2 == 0 ? largest : -largest});
  const Floats mean = mean_in_fp32(values, std::vector<int64_t>(5, 1), kTrimmed);
  REQUIRE(all_finite(mean));
  REQUIRE(mean[0] > 0.99f * largest);
}

TEST_CASE("in the embedding nothing is trimmed", "[outer][trimmed]") {
  OuterConfig config;
  config.codec = "fp32";
  config.mean = "trimmed";
  const shard::Layout layout = make_layout({8192, 8192});
  TestNode owner(config, layout, [](int64_t i) { return 0.05f * float(i % 7); });
  const auto decoded_mean = [&](int64_t chunk) {
    Parts parts;
    for (int n = 0; n < 3; ++n) {  // Only the first one saw these tokens.
      const Floats values(8192, n == 0 ? 0.03f : 0.0f);
      parts.push_back(make_part(net::PeerId(n), 1, encode(*make_codec("fp32"), values)));
    }
    return decode(*make_codec("fp32"), owner.state->reduce(0, chunk, parts).encoded, 8192);
  };
  REQUIRE(decoded_mean(0)[0] == Approx(0.01f));
  REQUIRE(decoded_mean(1)[0] == 0);
}
