// Blocks of a state that were taken at different times, brought to one version by the results of
// the rounds since: the digest says whether every bit is that of a node that was there.
#include <cstring>

#include "fixture.h"
#include "outer/codec.h"
#include "support/catch.h"

using namespace outer;
using namespace outer::testing;

namespace {

// Chunks of 19 * 512 elements, which end anywhere in blocks of 131072.
const std::vector<int64_t> kReplayUnits = {250'000, 99'999, 250'001};

OuterConfig replay_config(const std::string& codec) {
  OuterConfig config;
  config.codec = codec;
  config.warmup_rounds = 4;
  return config;
}

std::function<float(int64_t)> start() {
  return [random = std::make_shared<base::Random>(5)](int64_t) { return gaussian(*random); };
}

// A node that makes rounds alone: one of them over fewer steps than H, one with a chunk whose mean
// nobody takes.
class Donor : public TestNode {
 public:
  explicit Donor(const OuterConfig& config)
      : TestNode(config, make_layout(kReplayUnits), start()), codec_(make_codec(config.codec)) {}

  void round() {
    base::Random random(++seed_);
    for (auto& unit : local.units) {
      for (float& value : unit) value += 0.01f * gaussian(random);
    }
    net::Committed commit = exchange({state.get()}, 0, {1});
    if (commit.round == kShortRound) commit.step -= 60;
    if (commit.round == kRefusedRound) commit.results[kRefusedChunk] = absurd_part();
    apply(*state, commit, Merge::kReplace);
  }
  static constexpr uint64_t kShortRound = 2, kRefusedRound = 3;
  static constexpr size_t kRefusedChunk = 13;  // It has elements of two blocks.

 private:
  net::FragmentStore::Part absurd_part() const {
    const auto count = size_t(chunk_elements(state->fragment(0).element_count));
    const std::vector<float> values(count, 1e9f);
    std::vector<std::byte> encoded(size_t(codec_->encoded_bytes(int64_t(count))));
    REQUIRE(codec_->encode(values, encoded).ok());
    return make_part(0, 1, std::move(encoded));
  }

  const std::unique_ptr<Codec> codec_;
  uint64_t seed_ = 0;
};

struct Blocks {
  explicit Blocks(OuterState& donor) {
    for (int64_t block = 0; block < donor.block_count(0); ++block)
      all.push_back(*donor.read_block(0, block));
  }
  std::vector<net::FragmentStore::StateBlock> all;
};

std::vector<net::FragmentStore::PastChunk> results(OuterState& donor, uint64_t round,
                                                   int64_t block) {
  const auto cut = donor.cut(0);
  const int64_t end = std::min((block + 1) * cut.block_elements, cut.elements);
  std::vector<net::FragmentStore::PastChunk> found;
  for (int64_t chunk = block * cut.block_elements / cut.chunk_elements;
       chunk * cut.chunk_elements < end; ++chunk) {
    const auto past = donor.past_chunk(0, round, chunk);
    REQUIRE(past.has_value());
    found.push_back(*past);
  }
  return found;
}

}  // namespace

TEST_CASE("replay: blocks of different versions become the state of one that was there",
          "[outer][replay]") {
  const std::string codec = GENERATE("int8", "int4", "fp32");
  const OuterConfig config = replay_config(codec);
  Donor donor(config);
  std::vector<Blocks> history = {Blocks(*donor.state)};
  for (int round = 0; round < 4; ++round) {
    donor.round();
    history.emplace_back(*donor.state);
  }
  REQUIRE(donor.state->take_findings(0).refused_chunks == 1);
  REQUIRE(donor.state->past_chunk(0, Donor::kRefusedRound, Donor::kRefusedChunk)->is_refused);
  const int64_t block_count = donor.state->block_count(0);
  REQUIRE(block_count == 5);

  TestNode newcomer(config, make_layout(kReplayUnits));
  newcomer.state->begin_replace(false);
  for (int64_t block = 0; block < block_count; ++block) {
    const auto& taken = history[size_t(block)].all[size_t(block)];
    REQUIRE(taken.version == uint64_t(block));
    REQUIRE(newcomer.state->write_block(0, block, taken.bytes).ok());
    for (uint64_t round = taken.version + 1; round <= 4; ++round) {
      REQUIRE(
          newcomer.state->replay_block(0, block, round, results(*donor.state, round, block)).ok());
    }
  }
  REQUIRE(newcomer.state->end_replace(donor.state->states()).ok());
  REQUIRE(newcomer.state->states() == donor.state->states());
  REQUIRE(newcomer.local.all() == donor.local.all());
}

TEST_CASE("replay: a node's own state is brought on where it lies", "[outer][replay]") {
  const OuterConfig config = replay_config("int8");
  Donor donor(config), other(config);
  donor.round();
  other.round();
  REQUIRE(donor.state->states() == other.state->states());
  for (int round = 0; round < 3; ++round) donor.round();
  REQUIRE(!other.state->replay_block(0, 0, 2, results(*donor.state, 2, 0)).ok());
  other.state->begin_replace(true);
  for (int64_t block = 0; block < donor.state->block_count(0); ++block) {
    for (uint64_t round = 2; round <= 4; ++round) {
      REQUIRE(other.state->replay_block(0, block, round, results(*donor.state, round, block)).ok());
    }
  }
  REQUIRE(other.state->end_replace(donor.state->states()).ok());
  // What led to the state before is nothing to give to others: they would ask for what follows it.
  REQUIRE(!other.state->past_chunk(0, 1, 0).has_value());
  REQUIRE(other.state->states() == donor.state->states());
}

TEST_CASE("replay: the last results are kept, as many as asked for", "[outer][replay]") {
  const OuterConfig config = replay_config("int8");
  const auto kept = [&](int64_t count) {
    Donor donor(config);
    donor.state = OuterState::create(config, donor.layout, donor.local, donor.pool, count);
    for (int round = 0; round < 4; ++round) donor.round();
    std::vector<uint64_t> versions;
    for (uint64_t version = 0; version <= 5; ++version) {
      if (donor.state->past_chunk(0, version, 0)) versions.push_back(version);
    }
    return versions;
  };
  REQUIRE(kept(0).empty());
  REQUIRE(kept(2) == std::vector<uint64_t>{3, 4});
  REQUIRE(kept(9) == std::vector<uint64_t>{1, 2, 3, 4});
}

TEST_CASE("replay: results are worth it for as many rounds as they are fewer bytes than the state",
          "[outer][replay]") {
  const auto rounds_max = [](const std::string& codec) {
    TestNode node(replay_config(codec), make_layout(kReplayUnits));
    return node.state->replay_rounds_max(0);
  };
  REQUIRE(rounds_max("fp32") == 2);
  REQUIRE(rounds_max("int8") == 7);
  REQUIRE(rounds_max("int4") == 15);
}
