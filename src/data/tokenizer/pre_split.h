// Splits text into the words that byte-pair encoding works on: one stage after another, each on the
// pieces of the one before.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/pattern.h"

namespace data {

struct SplitStage {
  enum Kind {
    kIsolate,      // Each match and what lies between two of them is a piece.
    kKeepMatches,  // What lies between matches is lost.
    kKeepBetween,  // The matches are lost.
    kAddSpace,     // A space is put in front of a piece that does not begin with one.
  };
  Kind kind = kIsolate;
  std::shared_ptr<const Pattern> pattern;  // None for kAddSpace.
};

class PreSplit {
 public:
  using OnPiece = std::function<void(std::string_view piece)>;

  explicit PreSplit(std::vector<SplitStage> stages) : stages_(std::move(stages)) {}

  // Calls `on_word` for each word, none of which is empty, in their order.
  void split(std::string_view text, PatternScratch& scratch, const OnPiece& on_word) const;

 private:
  void run_stage(size_t stage, std::string_view text, PatternScratch& scratch,
                 const OnPiece& on_word) const;
  std::vector<SplitStage> stages_;
};

}  // namespace data
