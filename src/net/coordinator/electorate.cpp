#include "net/coordinator/electorate.h"

#include <algorithm>

#include "base/error.h"
#include "net/probe.h"

namespace net {

bool is_quorum(const Electorate& electorate, const std::set<uint64_t>& present,
               bool is_its_coordinator) {
  const auto is_present = [&](uint64_t key) { return present.contains(key); };
  const auto twice = 2 * std::ranges::count_if(electorate.voters, is_present);
  const auto all = std::ptrdiff_t(electorate.voters.size());
  if (twice != all) return twice > all;
  probe<"half of the voters are there">(all > 0);
  return electorate.tie_breaker == 0 ? is_its_coordinator : is_present(electorate.tie_breaker);
}

void Electorates::begin(std::vector<Electorate> inherited) {
  list_ = std::move(inherited);
  inherited_count_ = list_.size();
}

bool Electorates::is_quorum(const std::set<uint64_t>& present) const {
  for (size_t i = 0; i < list_.size(); ++i) {
    if (!net::is_quorum(list_[i], present, i >= inherited_count_)) return false;
  }
  return true;
}

void Electorates::add(Electorate made) {
  CHECK(is_settled(), "{} electorates", list_.size());
  list_.push_back(std::move(made));
}

bool Electorates::settle(const std::set<uint64_t>& informed) {
  if (is_settled() || !is_quorum(informed)) return false;
  list_.erase(list_.begin());
  inherited_count_ = inherited_count_ > 0 ? inherited_count_ - 1 : 0;
  return true;
}

}  // namespace net
