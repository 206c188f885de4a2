#include "outer/outer_step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/log.h"
#include "outer/contribution.h"

namespace outer {
namespace {

void lerp(float share, std::span<const float> outer, std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = share * values[i] + (1 - share) * outer[i];
}

void report_refused(FragmentRecord& record, const net::Committed& commit) {
  const std::vector<char>& is_refused = record.unmerged->is_refused;
  const int64_t count = std::ranges::count(is_refused, char{1});
  if (count == 0) return;
  record.refused_chunks += count;
  const size_t first = size_t(std::ranges::find(is_refused, char{1}) - is_refused.begin());
  base::log_error(
      "outer: round {} of fragment {}: {} of {} chunks are refused, as their means would ruin the "
      "parameters; the first is chunk {}, which member {} summed",
      commit.round, commit.fragment, count, is_refused.size(), first, commit.results[first].peer);
}

}  // namespace

void OuterStep::step(FragmentRecord& record, const net::Committed& commit) const {
  CHECK(!record.unmerged && int64_t(commit.results.size()) == record.chunk_count());
  record.unmerged.emplace();
  UnmergedRound& round = *record.unmerged;
  round.results = commit.results;
  round.has_ours = commit.has_ours;
  round.is_refused.resize(commit.results.size());
  round.is_short = is_short(commit.fragment, commit.step);
  round.optimizer = optimizer_of(commit.round);
  if (commit.contributed) round.ours = std::exchange(record.frozen, {});
  if (round.ours.empty()) round.has_ours.clear();
  round.has_ours.resize(commit.results.size());
  const double bound = mean_rms_max(record);
  local_.for_each_chunk(record, [&](int64_t chunk, std::span<float>) {
    round.is_refused[size_t(chunk)] =
        !step_chunk(record, chunk, commit.results[size_t(chunk)].encoded(), bound);
  });
  report_refused(record, commit);
  record.past.add(commit.round,
                  {.step = commit.step, .results = commit.results, .is_refused = round.is_refused});
}

// Whether a chunk is refused depends on all of the fragment, so that is told; what is done to an
// element is not.
void OuterStep::replay(FragmentRecord& record, int64_t fragment, Slice slice, uint64_t round,
                       std::span<const net::FragmentStore::PastChunk> chunks) const {
  const int64_t end = slice.first + slice.count;
  int64_t chunk = slice.first / record.chunk_elements;
  for (const net::FragmentStore::PastChunk& past : chunks) {
    const int64_t index = chunk++;
    if (past.is_refused) continue;
    const UnmergedRound rule{.is_short = is_short(fragment, past.step),
                             .optimizer = optimizer_of(round)};
    for_each_piece(record, index, slice, past.result.encoded(),
                   [&](std::span<float> mean, Slice piece) {
                     const int64_t first = std::max(piece.first, slice.first);
                     const int64_t count = std::min(piece.first + piece.count, end) - first;
                     const Slice both{.first = first, .count = count};
                     step_piece(rule, mean.subspan(size_t(first - piece.first), size_t(count)),
                                part_of(record.parameters, both), part_of(record.momentum, both));
                   });
  }
}

bool OuterStep::is_short(int64_t fragment, uint64_t step) const {
  return steps_covered(int64_t(step), config_.inner_steps, config_.fragments, fragment) <
         config_.inner_steps;
}

OuterOptimizer OuterStep::optimizer_of(uint64_t round) const {
  double share = 1;
  if (config_.warmup_rounds > 0) {
    share = std::min(1.0, double(round) / double(config_.warmup_rounds));
  }
  return {.learning_rate = float(share * config_.learning_rate),
          .momentum = float(share * config_.momentum)};
}

// A multiple of the parameters' own RMS, which every node computes alike: chunks are summed up in
// their order.
double OuterStep::mean_rms_max(const FragmentRecord& record) const {
  double squares = 0;
  for (const ChunkSquares& chunk : record.squares) squares += chunk.parameters;
  const double factor = config_.contribution_norm_max * config_.contribution_norm_max;
  const double bound = factor * std::sqrt(squares / double(record.element_count()));
  return bound > 0 ? bound : std::numeric_limits<double>::infinity();
}

// False: refused, and nothing is changed.
bool OuterStep::step_chunk(FragmentRecord& record, int64_t chunk,
                           std::span<const std::byte> encoded, double mean_rms_max) const {
  const int64_t count = record.chunk(chunk).count;
  const double mean_norm = std::sqrt(codecs_.result.sum_of_squares(encoded, count));
  if (mean_norm > mean_rms_max * std::sqrt(double(count))) return false;
  if (!is_far_from_infinity(record, chunk, mean_norm) && !would_be_finite(record, chunk, encoded)) {
    return false;
  }
  const auto step = [&](std::span<float> mean, Slice slice) {
    step_piece(*record.unmerged, mean, part_of(record.parameters, slice),
               part_of(record.momentum, slice));
  };
  for_each_piece(record, chunk, record.chunk(chunk), encoded, step);
  return true;
}

// body(their decoded mean, elements of the fragment), for as many as stay in a core's caches: all
// pieces of the chunk with elements of `part`.
template <class Body>
void OuterStep::for_each_piece(const FragmentRecord& record, int64_t chunk, Slice part,
                               std::span<const std::byte> encoded, const Body& body) const {
  const Slice all = record.chunk(chunk);
  for (int64_t first = 0; first < all.count; first += kPieceElements) {
    const Slice slice{.first = all.first + first,
                      .count = std::min(kPieceElements, all.count - first)};
    const bool is_before = slice.first + slice.count <= part.first;
    if (is_before || slice.first >= part.first + part.count) continue;
    float memory[kPieceElements];
    const std::span<float> mean(memory, size_t(slice.count));
    codecs_.result.decode_piece(encoded, {.first = first, .chunk_elements = all.count}, mean);
    body(mean, slice);
  }
}

void OuterStep::step_piece(const UnmergedRound& round, std::span<const float> mean,
                           std::span<float> parameters, std::span<float> momentum) {
  if (round.is_short) {
    subtract(parameters, mean);
  } else {
    round.optimizer.step(mean, parameters, momentum);
  }
}

// No number is larger than the length of the chunk. This is so for all numbers but absurd ones, and
// spares them a pass over memory.
bool OuterStep::is_far_from_infinity(const FragmentRecord& record, int64_t chunk,
                                     double mean_norm) {
  const ChunkSquares& squares = record.squares[size_t(chunk)];
  const OuterOptimizer& optimizer = record.unmerged->optimizer;
  const double mu = optimizer.momentum;
  const double momentum = mu * std::sqrt(squares.momentum) + mean_norm;
  const double change = double(optimizer.learning_rate) * (mean_norm + mu * momentum);
  const double sum = std::sqrt(squares.parameters) + momentum + std::max(change, mean_norm);
  return sum < 1e-3 * double(std::numeric_limits<float>::max());
}

bool OuterStep::would_be_finite(const FragmentRecord& record, int64_t chunk,
                                std::span<const std::byte> encoded) const {
  bool is_finite = true;
  const auto try_step = [&](std::span<float> mean, Slice slice) {
    const std::span<const float> old_parameters = part_of(record.parameters, slice);
    const std::span<const float> old_momentum = part_of(record.momentum, slice);
    std::vector<float> parameters(old_parameters.begin(), old_parameters.end());
    std::vector<float> momentum(old_momentum.begin(), old_momentum.end());
    step_piece(*record.unmerged, mean, parameters, momentum);
    is_finite = is_finite && all_finite(parameters) && all_finite(momentum);
  };
  for_each_piece(record, chunk, record.chunk(chunk), encoded, try_step);
  return is_finite;
}

void OuterStep::merge(FragmentRecord& record, Merge how) const {
  CHECK(record.unmerged);
  local_.for_each_chunk(record, [&](int64_t chunk, std::span<float> scratch) {
    merge_chunk(record, chunk, how, scratch);
  });
  record.unmerged.reset();
}

void OuterStep::merge_chunk(const FragmentRecord& record, int64_t chunk, Merge how,
                            std::span<float> scratch) const {
  const UnmergedRound& round = *record.unmerged;
  const Slice slice = record.chunk(chunk);
  if (round.is_refused[size_t(chunk)]) {
    if (how == Merge::kReplace) heal(record, slice, scratch);
    return;
  }
  const bool has_ours = round.has_ours[size_t(chunk)] != 0;
  if (how == Merge::kReplace || (how == Merge::kOverwrite && has_ours)) {
    return local_.write(record, slice, part_of(record.parameters, slice));
  }
  if (how == Merge::kRebase || !has_ours) return rebase(record, chunk, scratch);
  const auto share = float(config_.merge_local_share);
  local_.update(record, slice, slice, scratch, [&](Slice elements, Piece, std::span<float> values) {
    lerp(share, part_of(record.parameters, elements), values);
  });
}

void OuterStep::rebase(const FragmentRecord& record, int64_t chunk,
                       std::span<float> scratch) const {
  const UnmergedRound& round = *record.unmerged;
  const Slice slice = record.chunk(chunk);
  std::span<const std::byte> ours;
  if (round.has_ours[size_t(chunk)] != 0)
    ours = std::span(*round.ours[size_t(chunk)]).subspan(size_t(net::kContributionOffset));

  const auto on_device = [&](const DevicePiece& piece) {
    const std::span<float> values = scratch.first(size_t(piece.slice.count));
    LocalSlices::for_each_piece(slice, piece.slice, values,
                                [&](Slice elements, Piece part, std::span<float> change) {
                                  change_of(record, chunk, elements, part, change);
                                  for (float& value : change) value = -value;
                                });
    local_.add(piece, slice, values, codecs_.contribution, ours);
  };
  const auto rebase_piece = [&](Slice elements, Piece piece, std::span<float> values) {
    float memory[kPieceElements];
    const std::span<float> change(memory, values.size());
    change_of(record, chunk, elements, piece, change);
    subtract(values, change);
    if (!ours.empty()) codecs_.contribution.decode_add_piece(ours, piece, 1, values);
  };
  local_.for_each_part(record, slice, codecs_.contribution, on_device, [&](Slice rest) {
    local_.update(record, slice, rest, scratch, rebase_piece);
  });
}

// Old outer parameters minus new ones.
void OuterStep::change_of(const FragmentRecord& record, int64_t chunk, Slice elements, Piece piece,
                          std::span<float> change) const {
  const UnmergedRound& round = *record.unmerged;
  codecs_.result.decode_piece(round.results[size_t(chunk)].encoded(), piece, change);
  if (!round.is_short) round.optimizer.change(change, part_of(record.momentum, elements));
}

// What the node has in a chunk that is refused stays, if it is something.
void OuterStep::heal(const FragmentRecord& record, Slice slice, std::span<float> scratch) const {
  bool is_finite = true;
  local_.for_each_read(record, slice, scratch, [&](Slice, std::span<float> values) {
    is_finite = is_finite && all_finite(values);
  });
  if (!is_finite) local_.write(record, slice, part_of(record.parameters, slice));
}

namespace {
constexpr auto kHasOurs = std::byte{1}, kIsRefused = std::byte{2};
}

OuterState::Unmerged OuterStep::save(const FragmentRecord& record) {
  const UnmergedRound& round = *record.unmerged;
  OuterState::Unmerged saved{.is_short = round.is_short, .ours = join_payloads(round.ours)};
  for (size_t chunk = 0; chunk < round.results.size(); ++chunk) {
    const auto encoded = round.results[chunk].encoded();
    saved.results.insert(saved.results.end(), encoded.begin(), encoded.end());
    saved.flags.push_back((round.has_ours[chunk] ? kHasOurs : std::byte{}) |
                          (round.is_refused[chunk] ? kIsRefused : std::byte{}));
  }
  return saved;
}

void OuterStep::restore(FragmentRecord& record, const OuterState::Unmerged& saved) const {
  UnmergedRound round{.is_short = saved.is_short, .optimizer = optimizer_of(record.state.version)};
  for (net::Bytes& payload : split_payloads(record, saved.results, codecs_.result)) {
    round.results.push_back({.bytes = std::move(payload), .offset = net::kContributionOffset});
  }
  if (!saved.ours.empty()) round.ours = split_payloads(record, saved.ours, codecs_.contribution);
  if (int64_t(saved.flags.size()) != record.chunk_count()) {
    throw base::bad_input("a round of the checkpoint has another number of chunks");
  }
  for (const std::byte flags : saved.flags) {
    round.has_ours.push_back(!round.ours.empty() && (flags & kHasOurs) != std::byte{});
    round.is_refused.push_back((flags & kIsRefused) != std::byte{});
  }
  record.unmerged = std::move(round);
}

}  // namespace outer
