// A regular expression of a tokenizer.json, on PCRE2. The only door to that library.
//
// The files are written for Oniguruma with Ruby's syntax. What means the same in both is taken as
// it is, white space and word characters are rewritten, and what cannot be is refused by name, so
// that no text is ever split in silence in another way. What a letter or a number is, is said by
// the version of Unicode that PCRE2 knows (10.42: Unicode 14).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace data {

// Oniguruma's syntax to PCRE2's.
base::Result<std::string> translate_pattern(std::string_view pattern);

// Memory of one thread for matching.
class PatternScratch {
 public:
  PatternScratch();
  ~PatternScratch();
  PatternScratch(const PatternScratch&) = delete;
  PatternScratch& operator=(const PatternScratch&) = delete;

 private:
  friend class Pattern;
  struct State;
  std::unique_ptr<State> state_;
};

class Pattern {
 public:
  struct Match {
    size_t begin = 0, end = 0;
  };

  // A Failure says what of it is not supported.
  static base::Result<std::shared_ptr<const Pattern>> compile(std::string_view pattern);
  // Matches `text` itself.
  static base::Result<std::shared_ptr<const Pattern>> compile_literal(std::string_view text);
  ~Pattern();
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Finds the first match at or behind `begin`. REQUIRES: `subject` is valid UTF-8. Throws
  // bad_input where PCRE2 gives up. Thread safe, with a scratch per thread.
  bool find(std::string_view subject, size_t begin, PatternScratch& scratch, Match& match) const;

 private:
  struct Code;
  explicit Pattern(std::unique_ptr<Code> code);
  static base::Result<std::shared_ptr<const Pattern>> compile_with(std::string_view pattern,
                                                                   uint32_t options);
  std::unique_ptr<Code> code_;
};

}  // namespace data
