// Oniguruma's \s is Unicode's White_Space (PCRE2's has U+180E too), its \w has marks and
// connectors, \v is one character, and \h means something else altogether.
#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "data/tokenizer/pattern.h"

namespace data {
namespace {

constexpr std::string_view kWordClass = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
// Escapes that mean the same.
constexpr std::string_view kSameEscapes = "dDpPrntfaexAz";

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translation {
 public:
  explicit Translation(std::string_view pattern) : rest_(pattern) {}

  base::Result<std::string> run() {
    while (!rest_.empty() && reason_.empty()) {
      if (rest_.front() == '\\') {
        escape();
      } else if (is_in_class_) {
        inside_class();
      } else {
        outside_class();
      }
    }
    if (!reason_.empty()) return base::Failure{reason_};
    return std::move(out_);
  }

 private:
  void keep(size_t count) {
    out_ += rest_.substr(0, count);
    rest_.remove_prefix(count);
  }
  void replace(size_t count, std::string_view by) {
    out_ += by;
    rest_.remove_prefix(count);
  }
  void refuse(std::string what) { reason_ = std::move(what); }

  void escape() {
    if (rest_.size() < 2) return refuse("a backslash at the end");
    const char letter = rest_[1];
    if (letter == 's') return replace(2, "\\p{White_Space}");
    if (letter == 'S') return replace(2, "\\P{White_Space}");
    if (letter == 'v') return replace(2, "\\x0b");
    if (letter == 'w')
      return replace(2, is_in_class_ ? std::string(kWordClass) : fmt::format("[{}]", kWordClass));
    if (letter == 'W' && !is_in_class_) return replace(2, fmt::format("[^{}]", kWordClass));
    if (is_alphanumeric(letter) && kSameEscapes.find(letter) == std::string_view::npos)
      return refuse(fmt::format("\\{}", letter));
    const bool has_name =
        rest_.substr(1, 2) == "p{" || rest_.substr(1, 2) == "P{" || rest_.substr(1, 2) == "x{";
    const size_t name_end = has_name ? rest_.find('}') : 1;
    if (name_end == std::string_view::npos) return refuse("a name without an end");
    keep(name_end + 1);
  }

  void inside_class() {
    if (rest_.front() == '[') return refuse("a class inside a class");
    if (rest_.starts_with("&&")) return refuse("an intersection of classes");
    if (rest_.front() == ']') is_in_class_ = false;
    keep(1);
  }

  void outside_class() {
    const char c = rest_.front();
    if (c == '^' || c == '$') return refuse("an anchor at lines");
    if (rest_.starts_with("}+")) return refuse("a possessive interval");
    if (rest_.starts_with("(?")) return group();
    if (c != '[') return keep(1);
    is_in_class_ = true;
    keep(rest_.starts_with("[^") ? 2 : 1);
    if (rest_.starts_with(']')) refuse("an empty class");
  }

  void group() {
    for (const std::string_view same :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)"}) {
      if (rest_.starts_with(same)) return keep(same.size());
    }
    refuse(fmt::format("the group {}...", rest_.substr(0, 4)));
  }

  std::string_view rest_;
  std::string out_;
  bool is_in_class_ = false;
  std::string reason_;  // Why it cannot be translated.
};

}  // namespace

base::Result<std::string> translate_pattern(std::string_view pattern) {
  return Translation(pattern).run();
}

}  // namespace data
