#include "outer/config.h"

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
  v.number("contribution_norm_max", config.contribution_norm_max, {.minimum = 0, .maximum = 1e6},
           "A node's contribution to a chunk is shortened to so many times the median length of "
           "all, and has no weight beyond its square; 0: never");
  v.choice("codec", config.codec, {{"int8", "fp32"}}, "How pseudo-gradients travel between nodes");
}

}  // namespace outer
