#include "outer/config.h"

#include "outer/codec.h"

namespace outer {

void describe(base::ConfigVisitor& v, OuterConfig& config) {
  v.integer("inner_steps", config.inner_steps, {.minimum = 1, .maximum = 1'000'000},
            "Inner steps between two synchronisations of a fragment (H)");
  v.integer("fragments", config.fragments, {.minimum = 1, .maximum = 1024},
            "Parts of the model that are synchronised one after another (P); 1 is plain DiLoCo");
  v.number("learning_rate", config.learning_rate, {.minimum = 0, .maximum = 10},
           "Of the outer optimiser, SGD with Nesterov momentum");
  v.number("momentum", config.momentum, {.minimum = 0, .maximum = 0.9999},
           "Nesterov momentum of the outer optimiser");
  v.choice("mean", config.mean, {{"mean", "clipped", "trimmed"}},
           "How contributions become one: as they are, the too long ones shortened "
           "(contribution_norm_max), or without the largest and smallest numbers of each element");
  v.number("trim_share", config.trim_share, {.minimum = 0.01, .maximum = 0.49},
           "Share of the contributions that mean trimmed leaves out at either end, at least one "
           "where there are three");
  v.number("contribution_norm_max", config.contribution_norm_max, {.minimum = 0, .maximum = 1e6},
           "A node's contribution to a chunk is shortened to so many times the median length of "
           "all, and has no weight beyond its square; 0: never");
  v.integer("warmup_rounds", config.warmup_rounds, {.minimum = 0, .maximum = 1'000'000},
            "Rounds of a fragment over which learning_rate and momentum rise to their values");
  v.choice("codec", config.codec, {{"int8", "int8-codebook", "int4", "lut2", "fp32"}},
           "How pseudo-gradients travel between nodes");
  v.choice("result_codec", config.result_codec, {{"same", "int8", "int8-codebook", "int4", "fp32"}},
           "How their means travel; same: as outer.codec says");
  v.number("codebook_sigmas", config.codebook_sigmas, {.minimum = 1, .maximum = 64},
           "Of int8-codebook: the range of its buckets, in root mean squares to either side");
  v.integer("overlap_steps", config.overlap_steps, {.minimum = 0, .maximum = 1'000'000},
            "Steps that training goes on while a round runs, before its result is merged (tau); "
            "0: it waits");
  v.integer("overlap_steps_max", config.overlap_steps_max, {.minimum = 0, .maximum = 1'000'000},
            "A node waits for a round's result so many steps after it was begun, no sooner");
  v.choice("merge", config.merge, {{"rebase", "overwrite", "lerp"}},
           "What becomes of the steps that were trained while a round ran: kept whole, dropped, or "
           "mixed");
  v.number("merge_local_share", config.merge_local_share, {.minimum = 0, .maximum = 1},
           "Share of the node's own parameters in the mixture of merge lerp");
}

void validate(const OuterConfig& config, const std::string& path) {
  const auto fail = [&](const std::string& what, const std::string& hint) {
    return base::bad_input(fmt::format("{}: {}", path, what), hint);
  };
  if (config.contribution_norm_max > 0 && config.contribution_norm_max < 1) {
    throw fail(fmt::format("outer.contribution_norm_max: expected 0 or at least 1, found {}",
                           config.contribution_norm_max),
               "half of all contributions are longer than the median");
  }
  if (config.overlap_steps_max < config.overlap_steps) {
    throw fail(
        fmt::format("outer.overlap_steps_max: expected at least overlap_steps ({}), found {}",
                    config.overlap_steps, config.overlap_steps_max),
        "three times overlap_steps is a good value");
  }
  if (config.overlap_steps_max > 0 && config.overlap_steps_max >= config.inner_steps) {
    throw fail(
        fmt::format("outer.overlap_steps_max: expected less than outer.inner_steps ({}), found {}",
                    config.inner_steps, config.overlap_steps_max),
        "a fragment's round must be over before its next one begins");
  }
  if (result_codec(config) == "lut2") {
    throw fail("outer.result_codec: lut2 is for contributions only",
               "choose int4, int8 or fp32: what it leaves out of a mean would be lost");
  }
}

const std::string& result_codec(const OuterConfig& config) {
  return config.result_codec == "same" ? config.codec : config.result_codec;
}

int64_t result_bytes(const OuterConfig& config, int64_t element_count) {
  return make_codec(result_codec(config))->encoded_bytes(element_count);
}

}  // namespace outer
