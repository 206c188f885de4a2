// What a node has found out about a round in the chunks that it summed, put together from what it
// found in each.
#pragma once

#include <cstdint>
#include <map>

#include "outer/chunk_mean.h"
#include "outer/outer_state.h"

namespace outer {

// By chunk: in this order they are added up, whichever thread was done first. A chunk that was
// summed again stands in it once.
using EffectsByChunk = std::map<int64_t, ChunkEffects>;

// The outliers and the influences.
RoundFindings findings_of(const EffectsByChunk& chunks);

// Whether people should hear of it: a contribution against the direction of the run, or one that is
// more than half of the mean and more than twice its share of the weight, or pulls against it.
// `parts` is how many contributions there were: of one or two each may be anything.
bool is_remarkable(const RoundFindings::Influence& influence, int64_t parts);

}  // namespace outer
