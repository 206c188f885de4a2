#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "base/error.h"

namespace data {
namespace {

constexpr size_t kKnownWordSets = size_t{1} << 14;  // 2 MiB per thread.

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t(uint32_t(left)) << 32 | uint32_t(right);
}

}  // namespace

BpeScratch::BpeScratch() : known_words_(2 * kKnownWordSets) {
  static_assert(sizeof(KnownWord) == 64);
}

Bpe::Bpe(BpeOptions options) : options_(std::move(options)) {
  const size_t places = std::bit_ceil(2 * options_.merges.size() + 2);
  merges_.resize(places);
  shift_ = 64 - std::countr_zero(places);
  for (size_t i = 0; i < options_.merges.size(); ++i) {
    const BpeOptions::Merge& merge = options_.merges[i];
    const uint64_t pair = pair_of(merge.left, merge.right);
    // Of a pair that stands there twice the last counts.
    merges_[place_of(pair)] = {.pair = pair, .rank = uint32_t(i), .result = merge.result};
  }
  if (!options_.whole_words_first) return;
  for (size_t id = 0; id < options_.token_bytes.size(); ++id) {
    if (!options_.token_bytes[id].empty())
      whole_words_.emplace(options_.token_bytes[id], int32_t(id));
  }
}

// Where the pair is or would be.
size_t Bpe::place_of(uint64_t pair) const {
  constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15;
  size_t place = (pair * kGoldenRatio) >> shift_;
  while (merges_[place].pair != pair && merges_[place].pair != UINT64_MAX)
    place = (place + 1) & (merges_.size() - 1);
  return place;
}

const Bpe::Merged* Bpe::find_merge(int32_t left, int32_t right) const {
  const Merged& merged = merges_[place_of(pair_of(left, right))];
  return merged.result < 0 ? nullptr : &merged;
}

void Bpe::append_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  using KnownWord = BpeScratch::KnownWord;
  if (word.size() > KnownWord::kBytesMax) return merge_word(word, scratch, ids);
  const size_t set = std::hash<std::string_view>()(word) & (kKnownWordSets - 1);
  KnownWord* const places = &scratch.known_words_[2 * set];
  for (size_t i = 0; i < 2; ++i) {
    const KnownWord& known = places[i];
    if (known.byte_count != word.size() || std::memcmp(known.bytes, word.data(), word.size()) != 0)
      continue;
    ids.insert(ids.end(), known.ids, known.ids + known.id_count);
    return;
  }
  const size_t first = ids.size();
  merge_word(word, scratch, ids);
  const size_t count = ids.size() - first;
  if (count > KnownWord::kIdsMax) return;
  places[1] = places[0];
  places[0].byte_count = uint8_t(word.size());
  places[0].id_count = uint8_t(count);
  std::memcpy(places[0].bytes, word.data(), word.size());
  std::copy(ids.begin() + int64_t(first), ids.end(), places[0].ids);
}

void Bpe::add_candidate(int32_t position, BpeScratch& scratch) const {
  const auto& symbol = scratch.symbols_[size_t(position)];
  if (symbol.next < 0) return;
  const Merged* merge = find_merge(symbol.id, scratch.symbols_[size_t(symbol.next)].id);
  if (merge) {
    scratch.heap_.push_back(
        {.rank = merge->rank, .position = uint32_t(position), .result = merge->result});
  }
}

void Bpe::merge_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  using Candidate = BpeScratch::Candidate;
  constexpr int32_t kGone = -2;
  const auto is_behind = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  if (options_.whole_words_first) {
    const auto whole = whole_words_.find(word);
    if (whole != whole_words_.end()) return ids.push_back(whole->second);
  }

  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const auto count = int32_t(word.size());
  symbols.resize(word.size());
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols[size_t(i)] = {.id = options_.byte_ids[uint8_t(word[size_t(i)])],
                          .previous = i - 1,
                          .next = i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i < count; ++i) add_candidate(i, scratch);
  std::make_heap(heap.begin(), heap.end(), is_behind);

  const auto offer = [&](int32_t position) {
    const size_t before = heap.size();
    add_candidate(position, scratch);
    if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), is_behind);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), is_behind);
    const Candidate top = heap.back();
    heap.pop_back();
    auto& left = symbols[top.position];
    if (left.next < 0) continue;
    auto& right = symbols[size_t(left.next)];
    // What was offered may have been overtaken by another merge.
    const Merged* merge = find_merge(left.id, right.id);
    if (!merge || merge->result != top.result) continue;
    left.id = top.result;
    left.next = right.next;
    right.next = kGone;
    if (left.next >= 0) symbols[size_t(left.next)].previous = int32_t(top.position);
    if (left.previous >= 0) offer(left.previous);
    offer(int32_t(top.position));
  }
  for (int32_t i = 0; i >= 0; i = symbols[size_t(i)].next) ids.push_back(symbols[size_t(i)].id);
}

}  // namespace data
