#include "net/coordinator/inquiry.h"

#include <algorithm>

#include "base/log.h"

namespace net {
namespace {

// A wrong sum, or a wrong word about one, is no slow line: as many offences at once make 16 rounds
// on probation the first time, and 256 from the second on.
constexpr int64_t kOffences = 5;

}  // namespace

void Inquiries::on_commit(const Round& round) {
  Past past{.authority = round.authority(), .contributors = {}, .plan = round.plan()};
  const auto& contributors = round.open().contributors;
  const auto cannot_be_dialled = [](const Contributor& one) { return one.data.host.empty(); };
  const bool is_only_one = std::ranges::count_if(contributors, cannot_be_dialled) < 2;
  for (const Contributor& contributor : contributors) {
    const auto found = roster_.all().find(contributor.peer);
    past.contributors.push_back(
        {.peer = contributor.peer, .can_judge = is_only_one || !cannot_be_dialled(contributor)});
    if (found == roster_.all().end()) continue;
    past.contributors.back().node_key = found->second.node_key;
    past.contributors.back().name = found->second.name;
  }
  pasts_[round.authority().fragment] = std::move(past);
}

void Inquiries::on_audited(const MemberRecord& member, const Authority& authority,
                           const Audited& audited, Turn turn) {
  auto& past = pasts_[authority.fragment];
  const bool is_its =
      past && past->authority.term == authority.term && past->authority.round == authority.round &&
      authority.chunk < past->plan.trees.size() && past->plan.trees[authority.chunk].is_direct();
  if (!is_its) return;
  const auto found = std::ranges::find_if(past->contributors, [&](const Witness& witness) {
    return witness.peer == member.peer && witness.node_key == member.node_key;
  });
  if (found == past->contributors.end()) return;
  const auto index = size_t(found - past->contributors.begin());
  if (index == past->plan.trees[authority.chunk].owner) return;
  if (!past->inquiries.contains(authority.chunk) && !begin(*past, index, authority, audited, turn))
    return;
  Inquiry& inquiry = past->inquiries.at(authority.chunk);
  if (inquiry.is_closed) return;
  inquiry.words.try_emplace(index, audited);
  judge(*past, inquiry);
}

// Whoever is on probation asks nobody for anything.
bool Inquiries::begin(Past& past, size_t accuser, const Authority& authority,
                      const Audited& audited, Turn turn) {
  const bool is_other = !audited.remade.is_zero() && audited.remade != audited.published;
  const bool has_begun = std::ranges::any_of(
      past.inquiries, [&](const auto& entry) { return entry.second.accuser == accuser; });
  if ((!is_other && audited.withheld == 0) || has_begun) return false;
  if (conduct_.is_on_probation(past.contributors[accuser].node_key)) return false;
  past.inquiries[authority.chunk] = {.chunk = authority.chunk, .accuser = accuser, .words = {}};
  const size_t owner = past.plan.trees[authority.chunk].owner;
  base::log_warning(
      "{} {} chunk {} of {} in round {} of fragment {}: asking the others",
      past.contributors[accuser].name,
      is_other ? "finds another sum than was published for" : "cannot get all parts of",
      authority.chunk, past.contributors[owner].name, past.authority.round,
      past.authority.fragment);
  Authority about = past.authority;
  about.attempt = past.plan.attempts[authority.chunk];
  about.chunk = authority.chunk;
  for (size_t i = 0; i < past.contributors.size(); ++i) {
    if (i == accuser || i == owner) continue;
    const auto member = roster_.all().find(past.contributors[i].peer);
    const bool is_here =
        member != roster_.all().end() && member->second.node_key == past.contributors[i].node_key;
    if (is_here)
      speaker_.send(member->second.link, MessageType::kAudit, about, encode(AuditOrder{}), turn);
  }
  return true;
}

// The owner's own word is what it published. Who could not get a part may have been cut off from
// its contributor; only who found another sum than there is was wrong.
void Inquiries::judge(Past& past, Inquiry& inquiry) {
  const Audited& accusation = inquiry.words.at(inquiry.accuser);
  const auto all = size_t(std::ranges::count_if(past.contributors, &Witness::can_judge));
  const size_t owner = past.plan.trees[inquiry.chunk].owner;
  size_t for_accuser = 0, for_owner = 1;
  std::vector<size_t> against(past.contributors.size());  // Whoever does not show his part.
  for (const auto& [index, word] : inquiry.words) {
    const bool is_other = !word.remade.is_zero() && word.remade != word.published;
    for_accuser +=
        is_other && word.published == accusation.published && word.remade == accusation.remade;
    for_owner += !word.remade.is_zero() && !is_other;
    for (size_t i = 0; i < against.size(); ++i) against[i] += word.withheld >> i & 1;
  }
  const auto convict = [&](size_t who, size_t voices, const std::string& what) {
    const std::string why =
        fmt::format("it {} chunk {} in round {} of fragment {}, say {} of {}", what, inquiry.chunk,
                    past.authority.round, past.authority.fragment, voices, all);
    base::log_warning("{}: {}", past.contributors[who].name, why);
    const bool is_first = past.convicted.insert(who).second;
    if (is_first && past.contributors[who].node_key != 0)
      conduct_.offended(past.contributors[who].node_key, why, kOffences);
    inquiry.is_closed = true;
  };
  if (2 * for_accuser > all) {
    convict(owner, for_accuser, "published a wrong sum of");
  } else if (2 * for_owner > all) {
    inquiry.is_closed = true;
    if (!accusation.remade.is_zero())
      convict(inquiry.accuser, for_owner, "called a sum wrong that is right, that of");
  }
  for (size_t i = 0; i < against.size(); ++i) {
    const bool is_here = roster_.find_node(past.contributors[i].node_key) != nullptr;
    if (2 * against[i] > all && is_here && !inquiry.is_closed)
      convict(i, against[i], "does not show what it announced for");
  }
}

}  // namespace net
