#include "outer/outer_step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/log.h"
#include "outer/chunk_mean.h"
#include "outer/contribution.h"

namespace outer {
namespace {

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
  const int64_t covered =
      steps_covered(int64_t(commit.step), config_.inner_steps, config_.fragments, commit.fragment);
  record.unmerged.emplace();
  UnmergedRound& round = *record.unmerged;
  round.results = commit.results;
  round.has_ours = commit.has_ours;
  round.is_refused.resize(commit.results.size());
  round.is_short = covered < config_.inner_steps;
  round.optimizer = optimizer_of(commit.round);
  if (commit.contributed) round.ours = std::exchange(record.frozen, {});
  if (round.ours.empty()) round.has_ours.clear();
  round.has_ours.resize(commit.results.size());
  const double bound = mean_rms_max(record);
  local_.for_each_chunk(record, [&](int64_t chunk) {
    round.is_refused[size_t(chunk)] =
        !step_chunk(record, record.chunk(chunk), commit.results[size_t(chunk)].encoded(), bound);
  });
  report_refused(record, commit);
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
  std::vector<double> norms(static_cast<size_t>(record.chunk_count()));
  local_.for_each_chunk(record, [&](int64_t chunk) {
    norms[size_t(chunk)] = norm_of(part_of(record.parameters, record.chunk(chunk)));
  });
  double squares = 0;
  for (const double norm : norms) squares += norm * norm;
  const double factor = config_.contribution_norm_max * config_.contribution_norm_max;
  const double bound = factor * std::sqrt(squares / double(record.element_count()));
  return bound > 0 ? bound : std::numeric_limits<double>::infinity();
}

// False: refused, and nothing is changed.
bool OuterStep::step_chunk(FragmentRecord& record, Slice slice, std::span<const std::byte> encoded,
                           double mean_rms_max) const {
  const UnmergedRound& round = *record.unmerged;
  std::vector<float> mean(static_cast<size_t>(slice.count));
  codecs_.result.decode(encoded, mean);
  const std::span<float> old_parameters = part_of(record.parameters, slice);
  const std::span<float> old_momentum = part_of(record.momentum, slice);
  std::vector<float> parameters(old_parameters.begin(), old_parameters.end());
  std::vector<float> momentum(old_momentum.begin(), old_momentum.end());
  if (round.is_short) {
    subtract(parameters, mean);
  } else {
    round.optimizer.step(mean, parameters, momentum);
  }
  const bool is_absurd = norm_of(mean) > mean_rms_max * std::sqrt(double(slice.count));
  if (is_absurd || !all_finite(parameters) || !all_finite(momentum)) return false;
  std::ranges::copy(parameters, old_parameters.begin());
  std::ranges::copy(momentum, old_momentum.begin());
  return true;
}

void OuterStep::merge(FragmentRecord& record, Merge how) const {
  CHECK(record.unmerged);
  local_.for_each_chunk(record, [&](int64_t chunk) { merge_chunk(record, chunk, how); });
  record.unmerged.reset();
}

void OuterStep::merge_chunk(const FragmentRecord& record, int64_t chunk, Merge how) const {
  const UnmergedRound& round = *record.unmerged;
  const Slice slice = record.chunk(chunk);
  if (round.is_refused[size_t(chunk)]) {
    if (how == Merge::kReplace) heal(record, slice);
    return;
  }
  const std::span<const float> outer = part_of(record.parameters, slice);
  const bool has_ours = round.has_ours[size_t(chunk)] != 0;
  if (how == Merge::kReplace || (how == Merge::kOverwrite && has_ours)) {
    return local_.write(record, slice, outer);
  }
  std::vector<float> values(static_cast<size_t>(slice.count)), change(values.size());
  local_.read(record, slice, values);
  if (how == Merge::kLerp && has_ours) {
    const auto share = float(config_.merge_local_share);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = share * values[i] + (1 - share) * outer[i];
  } else {
    codecs_.result.decode(round.results[size_t(chunk)].encoded(), change);
    if (!round.is_short) round.optimizer.change(change, part_of(record.momentum, slice));
    subtract(values, change);
    if (has_ours) {
      const std::span<const std::byte> payload = *round.ours[size_t(chunk)];
      codecs_.contribution.decode_add(payload.subspan(size_t(net::kContributionOffset)), 1, values);
    }
  }
  local_.write(record, slice, values);
}

// What the node has in a chunk that is refused stays, if it is something.
void OuterStep::heal(const FragmentRecord& record, Slice slice) const {
  std::vector<float> values(static_cast<size_t>(slice.count));
  local_.read(record, slice, values);
  if (!all_finite(values)) local_.write(record, slice, part_of(record.parameters, slice));
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
