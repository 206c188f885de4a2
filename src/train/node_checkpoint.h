// What of a node goes into a checkpoint, and back.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "outer/outer_state.h"
#include "train/rank_team.h"

namespace train {

// Borrowed; `outer` is null in a solo run. No rank is working.
struct NodeTensors {
  RankTeam& ranks;
  outer::LocalParameters& masters;  // Of all ranks.
  outer::OuterState* outer = nullptr;
};

// Files: parameters, optimizer_<moment>, outer_parameters, outer_momentum; each with the model's
// tensor names. And in_flight: the contributions of manifest.in_flight, if there are some.
checkpoint::SaveReport save_node(base::Storage& storage, const checkpoint::SaveOptions& options,
                                 const checkpoint::Manifest& manifest, const NodeTensors& node);

// The other way. Throws bad_input when the checkpoint lacks something that the node needs.
void restore_node(const checkpoint::Reader& reader, const NodeTensors& node);

// The parameters that the node's checkpoint would stand for, read from its memory: as long as
// `node` lives and what it speaks of does not go on.
std::vector<checkpoint::TensorSource> trained_tensors(const NodeTensors& node);

// Begins with these parameters. `tensors` are in the layout's order.
void start_from(const std::vector<checkpoint::TensorSource>& tensors, const NodeTensors& node);

// The parameters that a checkpoint stands for: the outer ones if it has them, else the inner ones.
void load_trained_parameters(const checkpoint::Reader& reader, shard::Parameters& parameters);

}  // namespace train
