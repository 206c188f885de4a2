// A fragment's committed state on its way to a joiner and from a donor, in blocks: parameters, then
// momentum. The net thread.
#pragma once

#include <optional>

#include "outer/fragment_record.h"

namespace outer {

// As net::FragmentStore says of them; `fragment` is for messages.
std::optional<net::FragmentStore::StateBlock> read_block(FragmentRecord& record, int64_t block);
base::Result<void> write_block(FragmentRecord& record, int64_t fragment, int64_t block,
                               std::span<const std::byte> bytes);
std::optional<std::vector<std::byte>> digests(FragmentRecord& record, uint64_t version);
base::Result<std::vector<int64_t>> wrong_blocks(FragmentRecord& record, int64_t fragment,
                                                const net::FragmentState& expected,
                                                std::span<const std::byte> digests);

}  // namespace outer
