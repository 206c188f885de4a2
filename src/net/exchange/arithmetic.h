// What is computed from the bytes of a round's chunks: sums, and whether what came is fit to be
// used. A worker does it (net/machine.h, Job), so it needs nothing but its arguments and the store.
#pragma once

#include <vector>

#include "net/exchange/chunk.h"

namespace net {

// Of a contribution: its payload. Of a result, whether it came or was summed here: all.
struct Product {
  Bytes payload;
  ResultHeader header;
  base::Digest digest;  // Of the payload.
};

// They fail if the store does not take what is encoded in the payload, or it is a contribution that
// does not lead to its contributor's root.
base::Result<Product> check_contribution(const FragmentStore& store, const ChunkName& name,
                                         const base::Digest& root, Bytes payload);
base::Result<Product> check_result(const FragmentStore& store, const ChunkName& name,
                                   const ResultHeader& header, Bytes payload);

base::Result<Product> check_subtotal(const FragmentStore& store, const ChunkName& name,
                                     const ResultHeader& header, Bytes payload);

// One part of a sum. `header`: which contributors are in it, by their places in the round.
struct Summand {
  int64_t index = 0;  // Of who brought it.
  FragmentStore::Part part;
  ResultHeader header;
  bool is_checked = false;
  base::Digest root;  // Its contributor's; for remake().
};
// In the order of the summands; those that are not checked may be left out. Fails if none is left.
// What it makes is a subtotal if that is what `name` says, else a result.
base::Result<Product> sum(FragmentStore& store, const ChunkName& name,
                          const std::vector<Summand>& summands);
// What the summands make, of a round that is open no more.
struct Remade {
  base::Digest digest;        // Of the result; zero if it cannot be made.
  ContributorMask wrong = 0;  // Whose part is not what was announced.
};
Remade remake(FragmentStore& store, const ChunkName& name, const std::vector<Summand>& summands);

}  // namespace net
