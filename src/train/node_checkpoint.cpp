#include "train/node_checkpoint.h"

#include <algorithm>
#include <fmt/format.h>
#include <functional>

#include "base/math.h"
#include "train/open_checkpoint.h"

namespace train {
namespace {

constexpr int64_t kPiece = base::kMiB;  // Elements moved at once.
constexpr const char* kOuterMomentum = "outer_momentum.safetensors";
constexpr const char* kInFlight = "in_flight.safetensors";

// One flat copy of all parameters: `read` copies elements of a unit out of it, `write` into it.
struct FlatCopy {
  std::string file;
  std::function<void(int64_t unit, int64_t first, std::span<float>)> read;
  std::function<void(int64_t unit, int64_t first, std::span<const float>)> write;
};

FlatCopy moment_copy(const NodeTensors& node, int64_t moment, const std::string& name) {
  return {.file = fmt::format("optimizer_{}.safetensors", name),
          .read =
              [&node, moment](int64_t unit, int64_t first, std::span<float> out) {
                for (int r = 0; r < node.ranks.count(); ++r) {
                  node.ranks.rank(r).optimizer.copy_moment_to_host(moment, unit, first, out);
                  if (!node.ranks.rank(r).engine.parameters.is_sharded()) break;
                }
              },
          .write =
              [&node, moment](int64_t unit, int64_t first, std::span<const float> in) {
                for (int r = 0; r < node.ranks.count(); ++r) {
                  node.ranks.rank(r).optimizer.copy_moment_from_host(moment, unit, first, in);
                }
              }};
}

std::vector<FlatCopy> inner_copies(const NodeTensors& node) {
  std::vector<FlatCopy> copies;
  copies.push_back(
      {.file = kParametersFile,
       .read = [&node](int64_t unit, int64_t first,
                       std::span<float> out) { node.masters.read(unit, first, out); },
       .write = [&node](int64_t unit, int64_t first,
                        std::span<const float> in) { node.masters.write(unit, first, in); }});
  const auto moments = node.ranks.first().optimizer.moment_names();
  for (size_t i = 0; i < moments.size(); ++i)
    copies.push_back(moment_copy(node, int64_t(i), moments[i]));
  return copies;
}

// Where a unit's elements lie in its fragment.
struct Place {
  int64_t fragment = 0;
  int64_t offset = 0;
};
std::vector<Place> unit_places(const shard::Layout& layout, const outer::OuterState& outer) {
  std::vector<Place> places(layout.units.size());
  for (int64_t f = 0; f < outer.fragment_count(); ++f) {
    int64_t offset = 0;
    for (const int64_t unit : outer.fragment(f).units) {
      places[size_t(unit)] = {f, offset};
      offset += layout.units[size_t(unit)].element_count;
    }
  }
  return places;
}

// One file with every tensor of the model, read through `read`.
checkpoint::FileSource file_source(const shard::Layout& layout, const FlatCopy& copy) {
  checkpoint::FileSource file{.name = copy.file, .tensors = {}};
  for (int64_t u = 0; u < int64_t(layout.units.size()); ++u) {
    const shard::Unit& unit = layout.units[size_t(u)];
    for (const shard::TensorSpec& tensor : unit.tensors) {
      file.tensors.push_back(
          {.name = tensor.name,
           .shape = tensor.shape,
           .read = [read = copy.read, u, offset = tensor.offset](
                       int64_t first, std::span<float> out) { read(u, offset + first, out); }});
    }
  }
  return file;
}

void restore_file(const checkpoint::Reader& reader, const shard::Layout& layout,
                  const FlatCopy& copy) {
  std::vector<float> piece;
  for (int64_t u = 0; u < int64_t(layout.units.size()); ++u) {
    const shard::Unit& unit = layout.units[size_t(u)];
    for (const shard::TensorSpec& tensor : unit.tensors) {
      const int64_t count = tensor.shape.element_count();
      for (int64_t first = 0; first < count; first += kPiece) {
        piece.resize(size_t(std::min(kPiece, count - first)));
        reader.read(copy.file, tensor.name, tensor.shape, first, piece);
        copy.write(u, tensor.offset + first, piece);
      }
    }
  }
}

FlatCopy outer_copy(const std::string& file, const shard::Layout& layout,
                    const outer::OuterState& outer,
                    std::span<const float> (outer::OuterState::*values)(int64_t) const) {
  return {.file = file,
          .read =
              [places = unit_places(layout, outer), &outer, values](int64_t unit, int64_t first,
                                                                    std::span<float> out) {
                const Place place = places[size_t(unit)];
                const auto all = (outer.*values)(place.fragment);
                std::ranges::copy(all.subspan(size_t(place.offset + first), out.size()),
                                  out.begin());
              },
          .write = {}};
}

void restore_outer(const checkpoint::Reader& reader, const shard::Layout& layout,
                   outer::OuterState& outer) {
  const auto places = unit_places(layout, outer);
  std::vector<std::vector<float>> parameters, momentum;
  for (int64_t f = 0; f < outer.fragment_count(); ++f) {
    parameters.emplace_back(size_t(outer.fragment(f).element_count));
    momentum.emplace_back(size_t(outer.fragment(f).element_count));
  }
  const auto into = [&](std::vector<std::vector<float>>& all) {
    return [&](int64_t unit, int64_t first, std::span<const float> in) {
      const Place place = places[size_t(unit)];
      std::ranges::copy(in, all[size_t(place.fragment)].begin() + place.offset + first);
    };
  };
  restore_file(reader, layout,
               {.file = kOuterParametersFile, .read = {}, .write = into(parameters)});
  restore_file(reader, layout, {.file = kOuterMomentum, .read = {}, .write = into(momentum)});
  const auto& states = reader.manifest().outer;
  for (int64_t f = 0; f < outer.fragment_count(); ++f)
    outer.restore(f, states[size_t(f)].version, parameters[size_t(f)], momentum[size_t(f)]);
  for (int64_t f = 0; f < outer.fragment_count(); ++f) {
    if (outer.states()[size_t(f)] != states[size_t(f)]) {
      throw base::bad_input(fmt::format("the outer state of fragment {} in the checkpoint of step "
                                        "{} does not have the digest "
                                        "that its manifest names",
                                        f, reader.manifest().step),
                            "use an older checkpoint by removing this one's folder");
    }
  }
}

std::string bytes_name(const char* what, int64_t fragment) {
  return fmt::format("{}.{}", what, fragment);
}

checkpoint::FileSource in_flight_file(const std::vector<checkpoint::InFlight>& in_flight,
                                      const outer::OuterState& outer) {
  checkpoint::FileSource file{.name = kInFlight, .tensors = {}};
  for (const auto& one : in_flight) {
    const auto add = [&](const char* what, std::vector<std::byte> bytes) {
      file.bytes.push_back({.name = bytes_name(what, one.fragment), .bytes = std::move(bytes)});
    };
    if (!one.merge_from) {
      add("contribution", outer.frozen(one.fragment));
      continue;
    }
    outer::OuterState::Unmerged unmerged = outer.unmerged(one.fragment);
    add("result", std::move(unmerged.results));
    add("counted", std::move(unmerged.ours));
    add("flags", std::move(unmerged.flags));
  }
  return file;
}

void restore_in_flight(const checkpoint::Reader& reader, outer::OuterState& outer) {
  for (const auto& one : reader.manifest().in_flight) {
    if (one.fragment >= outer.fragment_count()) {
      throw base::bad_input(
          fmt::format("the checkpoint of step {} has a contribution to fragment "
                      "{}, but there are {}",
                      reader.manifest().step, one.fragment, outer.fragment_count()));
    }
    const auto bytes = [&](const char* what) {
      return reader.bytes(kInFlight, bytes_name(what, one.fragment));
    };
    const auto copy = [&](const char* what) {
      return std::vector<std::byte>(bytes(what).begin(), bytes(what).end());
    };
    if (one.merge_from) {
      outer.restore_unmerged(one.fragment, {.is_short = one.is_short,
                                            .results = copy("result"),
                                            .ours = copy("counted"),
                                            .flags = copy("flags")});
    } else {
      outer.restore_frozen(one.fragment, bytes("contribution"));
    }
  }
}

}  // namespace

checkpoint::SaveReport save_node(base::Storage& storage, const checkpoint::SaveOptions& options,
                                 const checkpoint::Manifest& manifest, const NodeTensors& node) {
  const shard::Layout& layout = node.ranks.first().engine.layout;
  for (int64_t f = 0; node.outer && f < node.outer->fragment_count(); ++f) {
    if (node.outer->outer_is_finite(f)) continue;
    throw base::resource_lost(
        fmt::format("the outer state of fragment {} is not finite: it is not saved", f),
        "start the node again: it goes on from its last checkpoint");
  }
  std::vector<checkpoint::FileSource> files;
  for (const FlatCopy& copy : inner_copies(node)) files.push_back(file_source(layout, copy));
  if (node.outer) {
    files.push_back(file_source(layout, outer_copy(kOuterParametersFile, layout, *node.outer,
                                                   &outer::OuterState::outer_parameters)));
    files.push_back(file_source(layout, outer_copy(kOuterMomentum, layout, *node.outer,
                                                   &outer::OuterState::outer_momentum)));
    if (!manifest.in_flight.empty()) {
      files.push_back(in_flight_file(manifest.in_flight, *node.outer));
    }
  }
  return checkpoint::save(storage, options, manifest, files);
}

void restore_node(const checkpoint::Reader& reader, const NodeTensors& node) {
  const shard::Layout& layout = node.ranks.first().engine.layout;
  for (const FlatCopy& copy : inner_copies(node)) restore_file(reader, layout, copy);
  node.ranks.run([&](Rank& rank) {
    rank.optimizer.set_update_count(reader.manifest().optimizer_updates);
    rank.optimizer.set_gradient_squares(reader.manifest().gradient_squares);
    rank.engine.parameters.masters_changed();
  });
  if (!node.outer) return;
  if (int64_t(reader.manifest().outer.size()) != node.outer->fragment_count()) {
    throw base::bad_input(
        fmt::format("the checkpoint of step {} has {} outer fragments, the config {}",
                    reader.manifest().step, reader.manifest().outer.size(),
                    node.outer->fragment_count()),
        "resume with the config that the run was started with, or choose another "
        "node.run_directory");
  }
  restore_outer(reader, layout, *node.outer);
  restore_in_flight(reader, *node.outer);
}

std::vector<checkpoint::TensorSource> trained_tensors(const NodeTensors& node) {
  const shard::Layout& layout = node.ranks.first().engine.layout;
  const FlatCopy copy = node.outer ? outer_copy(kOuterParametersFile, layout, *node.outer,
                                                &outer::OuterState::outer_parameters)
                                   : inner_copies(node).front();
  return file_source(layout, copy).tensors;
}

void start_from(const std::vector<checkpoint::TensorSource>& tensors, const NodeTensors& node) {
  std::vector<float> piece;
  auto tensor = tensors.begin();
  const shard::Layout& layout = node.ranks.first().engine.layout;
  for (int64_t u = 0; u < int64_t(layout.units.size()); ++u) {
    for (const shard::TensorSpec& spec : layout.units[size_t(u)].tensors) {
      CHECK(tensor->name == spec.name);
      const int64_t count = spec.shape.element_count();
      for (int64_t first = 0; first < count; first += kPiece) {
        piece.resize(size_t(std::min(kPiece, count - first)));
        tensor->read(first, piece);
        node.masters.write(u, spec.offset + first, piece);
      }
      ++tensor;
    }
  }
  node.ranks.run([](Rank& rank) { rank.engine.parameters.masters_changed(); });
}

void load_trained_parameters(const checkpoint::Reader& reader, shard::Parameters& parameters) {
  restore_file(reader, parameters.layout(),
               {.file = trained_file(reader),
                .read = {},
                .write = [&](int64_t unit, int64_t first, std::span<const float> in) {
                  parameters.copy_masters_from_host(unit, first, in);
                }});
  parameters.masters_changed();
}

}  // namespace train
