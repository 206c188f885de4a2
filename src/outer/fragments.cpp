#include "outer/fragments.h"

#include <algorithm>

#include "base/error.h"
#include "base/math.h"

namespace outer {

namespace {

int64_t fragment_of_unit(int64_t unit, int64_t unit_count, int64_t fragment_count) {
  if (unit == 0) return 0;
  if (unit == unit_count - 1) return fragment_count - 1;
  const int64_t block = unit - 1;
  return fragment_count < 3 ? block % fragment_count : 1 + block % (fragment_count - 2);
}

}  // namespace

std::vector<Fragment> make_fragments(const shard::Layout& layout, int64_t count) {
  const int64_t unit_count = int64_t(layout.units.size());
  if (count < 1 || count > unit_count) {
    throw base::bad_input(
        fmt::format(
            "outer.fragments: expected an integer from 1 to {} (units of the model), found {}",
            unit_count, count),
        "1 is plain DiLoCo");
  }
  std::vector<Fragment> fragments(static_cast<size_t>(count));
  for (int64_t unit = 0; unit < unit_count; ++unit) {
    Fragment& fragment = fragments[size_t(fragment_of_unit(unit, unit_count, count))];
    fragment.units.push_back(unit);
    fragment.element_count += layout.units[size_t(unit)].element_count;
  }
  return fragments;
}

namespace {

int64_t first_turn(int64_t fragment, int64_t inner_steps, int64_t fragment_count) {
  return (fragment + 1) * inner_steps / fragment_count;
}

}  // namespace

std::vector<int64_t> due_fragments(int64_t steps_done, int64_t inner_steps, int64_t fragment_count,
                                   int64_t steps_total) {
  CHECK(inner_steps >= 1 && fragment_count >= 1);
  std::vector<int64_t> due;
  if (steps_done <= 0) return due;
  const bool is_end = steps_total != 0 && steps_done == steps_total;
  for (int64_t f = 0; f < fragment_count; ++f) {
    const int64_t first = first_turn(f, inner_steps, fragment_count);
    const bool is_turn = steps_done >= first && (steps_done - first) % inner_steps == 0;
    if (is_end || is_turn) due.push_back(f);
  }
  return due;
}

int64_t steps_covered(int64_t steps_done, int64_t inner_steps, int64_t fragment_count,
                      int64_t fragment) {
  CHECK(inner_steps >= 1 && fragment >= 0 && fragment < fragment_count);
  const int64_t first = first_turn(fragment, inner_steps, fragment_count);
  if (first > 0 && steps_done <= first) return std::max<int64_t>(steps_done, 0);
  const int64_t since_turn = (steps_done - first) % inner_steps;
  return since_turn == 0 ? inner_steps : since_turn;
}

int64_t chunk_elements(int64_t fragment_elements) {
  // Whole codec blocks; small enough that 64 owners can share a fragment, large enough that headers
  // do not count, and at most 4 MiB of fp32, the largest message.
  constexpr int64_t kBlock = 512;
  return std::clamp(base::round_up(fragment_elements / 64, kBlock), 16 * kBlock, int64_t{1} << 20);
}

int64_t chunk_count(int64_t fragment_elements) {
  return base::div_ceil(fragment_elements, chunk_elements(fragment_elements));
}

}  // namespace outer
