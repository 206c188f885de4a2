// Byte-pair encoding of single words.
//
// A word begins as its bytes; of all neighbours that may be merged the pair of the lowest rank, and
// of equal ones the leftmost, becomes one token, until none is left. Time n log n for n bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace data {

struct BpeOptions {
  // The bytes of each token that is reached by merging, by id; empty strings: none.
  std::vector<std::string> token_bytes;
  // Two ids become a third; the first of the list has the lowest rank.
  struct Merge {
    int32_t left = 0, right = 0, result = 0;
  };
  std::vector<Merge> merges;
  std::array<int32_t, 256> byte_ids{};  // -1: a byte that no text has.
  bool whole_words_first = false;       // A word that is a token is that token ("ignore_merges").
};

// Memory of one thread: what merging needs, and the ids of words seen before.
class BpeScratch {
 public:
  BpeScratch();

 private:
  friend class Bpe;
  struct Symbol {
    int32_t id = 0;
    int32_t previous = 0, next = 0;  // Indices; -1: none. next is -2 once it was merged away.
  };
  struct Candidate {
    uint32_t rank = 0, position = 0;
    int32_t result = 0;
  };
  // One line of the processor's cache. A word that is longer or has more ids is not kept.
  struct KnownWord {
    static constexpr size_t kBytesMax = 30, kIdsMax = 8;
    uint8_t byte_count = 0, id_count = 0;
    char bytes[kBytesMax] = {};
    int32_t ids[kIdsMax] = {};
  };
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::vector<KnownWord> known_words_;  // Two places for each hash; the second is the older one.
};

class Bpe {
 public:
  explicit Bpe(BpeOptions options);

  // Adds the ids of the word to `ids`. Thread safe, with a scratch per thread.
  void append_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct Merged {
    uint64_t pair = UINT64_MAX;  // Left id above, right id below; UINT64_MAX: an empty place.
    uint32_t rank = 0;
    int32_t result = -1;
  };
  const Merged* find_merge(int32_t left, int32_t right) const;
  size_t place_of(uint64_t pair) const;
  void merge_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void add_candidate(int32_t position, BpeScratch& scratch) const;

  BpeOptions options_;
  std::vector<Merged> merges_;  // Open addressing; the size is a power of two.
  int shift_ = 0;
  std::unordered_map<std::string_view, int32_t> whole_words_;
};

}  // namespace data
