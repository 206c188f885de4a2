#include "data/tokenizer/pre_split.h"

#include "data/utf8.h"

namespace data {
namespace {

// Calls `body(piece, is_match)` for the matches and for what lies between them.
template <class Body>
void for_each_piece(const Pattern& pattern, std::string_view text, PatternScratch& scratch,
                    const Body& body) {
  size_t done = 0;
  Pattern::Match match;
  for (size_t begin = 0; begin < text.size() && pattern.find(text, begin, scratch, match);) {
    if (match.begin > done) body(text.substr(done, match.begin - done), false);
    if (match.end > match.begin) body(text.substr(match.begin, match.end - match.begin), true);
    done = begin = match.end;
    // An empty match is looked for again one character further on.
    if (match.end == match.begin && begin < text.size()) begin += character_at(text, begin).bytes;
  }
  if (done < text.size()) body(text.substr(done), false);
}

}  // namespace

void PreSplit::split(std::string_view text, PatternScratch& scratch, const OnPiece& on_word) const {
  run_stage(0, text, scratch, on_word);
}

void PreSplit::run_stage(size_t stage, std::string_view text, PatternScratch& scratch,
                         const OnPiece& on_word) const {
  if (text.empty()) return;
  if (stage == stages_.size()) return on_word(text);
  const SplitStage& current = stages_[stage];
  if (current.kind == SplitStage::kAddSpace) {
    if (text.front() == ' ') return run_stage(stage + 1, text, scratch, on_word);
    return run_stage(stage + 1, " " + std::string(text), scratch, on_word);
  }
  const bool is_last = stage + 1 == stages_.size();
  for_each_piece(*current.pattern, text, scratch, [&](std::string_view piece, bool is_match) {
    if (current.kind == SplitStage::kKeepMatches && !is_match) return;
    if (current.kind == SplitStage::kKeepBetween && is_match) return;
    is_last ? on_word(piece) : run_stage(stage + 1, piece, scratch, on_word);
  });
}

}  // namespace data
