#include "net/member/member_rounds.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "net/probe.h"

namespace net {
namespace {

bool is_same_round(const Authority& a, const Authority& b) {
  return a.term == b.term && a.round == b.round;
}

// Whoever registers again in the middle of a round gets another number, and what it had delivered
// under the old one counts. But the round may have been aborted and opened anew meanwhile, and the
// number may be another node's by then.
bool names(const Open& open, const Contributor& us) {
  return std::ranges::any_of(open.contributors, [&](const Contributor& other) {
    return other.peer == us.peer && other.node_key == us.node_key;
  });
}

HeldRound named(const Exchange& round) {
  const Authority authority = round.authority();
  return {.fragment = authority.fragment,
          .term = authority.term,
          .attempt = authority.attempt,
          .round = authority.round,
          .results = round.digest(),
          .step = round.step()};
}

}  // namespace

MemberRounds::MemberRounds(FragmentStore& store, Fetcher& fetcher, const AuditOptions& audit)
    : store_(store), fetcher_(fetcher), audit_(audit), slots_(size_t(store.fragment_count())) {}

void MemberRounds::withdraw(int64_t fragment) {
  Slot& slot = at(fragment);
  slot.ready.reset();
  if (slot.held && slot.held->is_contributor()) slot.held.reset();
  probe<"a contribution is withdrawn when its round is open">(slot.exchange &&
                                                              slot.exchange->is_contributor());
  if (slot.exchange && slot.exchange->is_contributor()) close(fragment);
}

void MemberRounds::forget_ready() {
  for (Slot& slot : slots_) slot.ready.reset();
}

// --- The coordinator's words.

base::Result<void> MemberRounds::on_open(Exchange::Setup setup) {
  const int64_t fragment = setup.authority.fragment;
  close(fragment);
  Slot& slot = at(fragment);
  slot.audit.reset();
  want_proofs(fragment);
  if (!is_same_round(slot.newest, setup.authority)) slot.us.reset();
  if (slot.us && names(setup.open, *slot.us)) setup.earlier_self = slot.us->peer;
  probe<"a member comes back in the middle of a round">(setup.earlier_self != kNobody &&
                                                        setup.earlier_self != setup.self);
  const auto named = std::ranges::find(setup.open.contributors, setup.self, &Contributor::peer);
  if (named != setup.open.contributors.end()) slot.us = *named;
  slot.newest = setup.authority;
  auto exchange = Exchange::create(std::move(setup), store_);
  if (!exchange.ok()) return base::Failure{exchange.reason()};
  probe<"a round opens with what was withdrawn">((*exchange)->is_contributor() && !slot.ready);
  if ((*exchange)->is_contributor() && !slot.ready) return {};  // A withdrawal is on its way.
  slot.exchange = std::move(*exchange);
  want_missing(fragment);
  return {};
}

base::Result<void> MemberRounds::on_reown(const Reown& reown, const Authority& authority) {
  Slot& slot = at(authority.fragment);
  probe<"a Reown of a round that is not open here">(!slot.exchange ||
                                                    !is_same_round(slot.newest, authority));
  if (!slot.exchange || !is_same_round(slot.newest, authority)) return {};
  slot.newest.attempt = std::max(slot.newest.attempt, authority.attempt);
  const auto done = slot.exchange->reown(reown, authority.attempt);
  if (!done.ok()) return done;
  if (slot.exchange->is_excluded()) {
    probe<"we are left out of a round">();
    close(authority.fragment);
  } else {
    want_missing(authority.fragment);
  }
  return {};
}

base::Result<Committed> MemberRounds::on_commit(const Commit& commit, const Authority& authority,
                                                Instant now) {
  Slot& slot = at(authority.fragment);
  const Exchange* const exchange = to_commit(commit, authority);
  probe<"a commit of what we do not hold">(!exchange);
  if (!exchange) {
    return base::Failure{fmt::format("it committed round {} of fragment {}, which we do not hold",
                                     authority.round, authority.fragment)};
  }
  slot.made = named(*exchange);
  Committed committed = exchange->finish(commit, authority.epoch, now);
  auto record = exchange->record();
  close(authority.fragment);
  slot.held.reset();
  if (record) {
    slot.audit = std::make_shared<Audit>(std::move(*record), store_, audit_.patience);
    for (const int64_t chunk : slot.audit->sample(audit_.secret, audit_.chunks))
      slot.audit->begin(chunk, false, now);
    want_proofs(authority.fragment);
  }
  slot.ready.reset();
  return committed;
}

// The open round; or the one of a coordinator that was lost, as the next one says.
Exchange* MemberRounds::to_commit(const Commit& commit, const Authority& authority) const {
  const Slot& slot = at(authority.fragment);
  for (Exchange* const exchange : {slot.exchange.get(), slot.held.get()}) {
    const bool is_it = exchange && is_same_round(exchange->authority(), authority);
    if (is_it && exchange->holds_all() && exchange->digest() == commit.results) return exchange;
  }
  return nullptr;
}

void MemberRounds::on_abort(const Authority& authority) {
  if (is_same_round(at(authority.fragment).newest, authority)) close(authority.fragment);
}

void MemberRounds::on_audit(const Authority& authority, Instant now) {
  const Slot& slot = at(authority.fragment);
  if (!slot.audit || !slot.audit->is_of(authority.term, authority.round)) return;
  slot.audit->begin(authority.chunk, true, now);
  want_proofs(authority.fragment);
}

void MemberRounds::on_tick(Turn turn) {
  for (const Slot& slot : slots_) {
    if (slot.audit) slot.audit->on_tick(turn);
  }
}

void MemberRounds::close_all() {
  for (int64_t fragment = 0; fragment < fragment_count(); ++fragment) close(fragment);
}

void MemberRounds::hold_complete() {
  for (Slot& slot : slots_) {
    if (slot.exchange && slot.exchange->holds_all()) slot.held = slot.exchange;
  }
}

std::vector<HeldRound> MemberRounds::held() const {
  std::vector<HeldRound> all;
  for (const Slot& slot : slots_) {
    if (slot.held) all.push_back(named(*slot.held));
    if (slot.made) all.push_back(*slot.made);
  }
  if (int64_t(all.size()) > kHeldRoundsMax) all.resize(size_t(kHeldRoundsMax));
  return all;
}

void MemberRounds::forget_held() {
  for (Slot& slot : slots_) slot.held.reset();
}

void MemberRounds::forget_made() {
  for (Slot& slot : slots_) slot.made.reset();
}

void MemberRounds::close(int64_t fragment) {
  at(fragment).exchange.reset();
  fetcher_.forget_if(
      [&](const ChunkName& name) { return is_of_round(name.kind) && name.fragment == fragment; });
}

// --- Chunks.

Exchange* MemberRounds::exchange_of(const ChunkName& name) {
  const Slot& slot = at(name.fragment);
  const bool is_its = slot.newest.term == name.term && slot.newest.round == name.round;
  return is_its ? slot.exchange.get() : nullptr;
}

void MemberRounds::deliver(const Fetcher::Delivery& delivery, const Bytes& payload, Turn turn) {
  if (delivery.name.kind == WantKind::kProof) {
    Audit* const audit = audit_of(delivery.name);
    CHECK(audit, "a proof of chunk {} is wanted for a round that is forgotten",
          delivery.name.chunk);
    audit->deliver(delivery.name, payload);
    return fetcher_.taken(delivery);
  }
  Exchange* const exchange = exchange_of(delivery.name);
  CHECK(exchange, "chunk {} is wanted for a round that is closed", delivery.name.chunk);
  const auto delivered = exchange->deliver(delivery.name, delivery.from, payload);
  if (!delivered.ok()) fetcher_.bad(delivery, delivered.reason(), turn);
}

std::optional<MemberRounds::Job> MemberRounds::next_job() {
  for (const Slot& slot : slots_) {
    auto task = slot.exchange ? slot.exchange->next_task() : std::nullopt;
    if (!task) continue;
    struct Order {
      Exchange::Task task;
      base::Result<Product> product = base::Failure{"it was not made"};
    };
    const auto order = std::make_shared<Order>(Order{.task = std::move(*task)});
    return Job{.work = [order] { order->product = order->task.work(); },
               .finish =
                   [this, order, watched = std::weak_ptr(slot.exchange)](Turn turn) {
                     const auto exchange = watched.lock();
                     probe<"a job ends when its round is over">(!exchange);
                     if (exchange) finish(*exchange, order->task, std::move(order->product), turn);
                   }};
  }
  return next_audit_job();
}

std::optional<MemberRounds::Job> MemberRounds::next_audit_job() {
  for (const Slot& slot : slots_) {
    auto task = slot.audit ? slot.audit->next_task() : std::nullopt;
    if (!task) continue;
    struct Order {
      Audit::Task task;
      Remade remade;
    };
    const auto order = std::make_shared<Order>(Order{.task = std::move(*task)});
    return Job{.work = [order] { order->remade = order->task.work(); },
               .finish =
                   [order, watched = std::weak_ptr(slot.audit)](Turn) {
                     const auto audit = watched.lock();
                     if (audit) audit->finish(order->task.chunk, order->remade);
                   }};
  }
  return std::nullopt;
}

// What was delivered is not wanted any more if a Reown came meanwhile.
void MemberRounds::finish(Exchange& exchange, const Exchange::Task& task,
                          base::Result<Product> product, Turn turn) {
  const Fetcher::Delivery delivery{.name = task.name, .from = task.from};
  const bool is_sum = task.from == kNobody;
  probe<"a chunk was checked that is not wanted any more">(!is_sum && !fetcher_.wants(task.name));
  if (!is_sum && !fetcher_.wants(task.name)) return;
  const auto finished = exchange.finish(task, std::move(product));
  if (is_sum) {
    ++sum_count_;
  } else if (finished.ok()) {
    fetcher_.taken(delivery);
  } else {
    fetcher_.bad(delivery, finished.reason(), turn);
  }
}

// A name of a round that we have not seen yet is one of a round that will be opened here too.
Answer MemberRounds::answer(const ChunkName& name) {
  if (name.fragment >= slots_.size()) return gone();
  if (name.kind == WantKind::kProof) {
    if (const Audit* const audit = audit_of(name)) return audit->answer(name);
    const bool is_open = exchange_of(name) != nullptr;  // Its Commit is still to come here.
    return is_open ? not_yet() : gone();
  }
  if (Exchange* const exchange = exchange_of(name)) return exchange->answer(name);
  const Authority& newest = at(name.fragment).newest;
  const bool is_newer = std::tuple(name.term, name.round, name.attempt) >
                        std::tuple(newest.term, newest.round, newest.attempt);
  probe<"a want comes before its Open">(is_newer);
  probe<"a want comes after its round">(!is_newer);
  return is_newer ? not_yet() : gone();
}

// What the round needs now is wanted; what it does not need any more is not.
void MemberRounds::want_missing(int64_t fragment) {
  std::set<ChunkName> names;
  const auto missing = at(fragment).exchange->missing();
  for (const auto& [name, provider] : missing) names.insert(name);
  fetcher_.forget_if([&](const ChunkName& name) {
    return is_of_round(name.kind) && name.fragment == fragment && !names.contains(name);
  });
  for (const auto& [name, provider] : missing) fetcher_.want(name, {provider});
}

Audit* MemberRounds::audit_of(const ChunkName& name) {
  const Slot& slot = at(name.fragment);
  const bool is_its = slot.audit && slot.audit->is_of(name.term, name.round);
  return is_its ? slot.audit.get() : nullptr;
}

// Those of an older round are not wanted any more.
void MemberRounds::want_proofs(int64_t fragment) {
  const auto& audit = at(fragment).audit;
  fetcher_.forget_if([&](const ChunkName& name) {
    return name.kind == WantKind::kProof && name.fragment == fragment && !audit_of(name);
  });
  if (!audit) return;
  for (const auto& [name, provider] : audit->missing()) fetcher_.want(name, {provider});
}

MemberRounds::News MemberRounds::take_news() {
  News news;
  for (Slot& slot : slots_) {
    if (slot.audit) {
      for (Audit::Finding& finding : slot.audit->take_findings())
        news.audited.push_back(std::move(finding));
    }
    if (!slot.exchange) continue;
    news.has_new_results |= slot.exchange->take_has_new_results();
    if (const auto digest = slot.exchange->take_digest()) {
      news.complete.push_back({slot.exchange->authority(), *digest});
    }
  }
  return news;
}

}  // namespace net
