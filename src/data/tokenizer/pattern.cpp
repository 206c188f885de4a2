#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer/pattern.h"

#include <pcre2.h>

#include "base/math.h"

namespace data {
namespace {

constexpr size_t kJitStackMin = size_t(64 * base::kKiB);
constexpr size_t kJitStackMax = size_t(64 * base::kMiB);
// A run of spaces as long as a document takes as many steps; a pattern of exponential time ends
// within a minute.
constexpr uint32_t kStepsMax = uint32_t{1} << 31;

std::string message_of(int error) {
  char text[256];
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof(text));
  return text;
}

}  // namespace

struct PatternScratch::State {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackMin, kJitStackMax, nullptr);

  State() {
    if (!match || !context || !stack) throw std::bad_alloc();
    pcre2_set_match_limit(context, kStepsMax);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

PatternScratch::PatternScratch() : state_(std::make_unique<State>()) {}
PatternScratch::~PatternScratch() = default;

struct Pattern::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {
    // It is only faster with it; some machines forbid memory that can be written and run.
    has_jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  }
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  pcre2_code* code;
  bool has_jit = false;
};

Pattern::Pattern(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Pattern::~Pattern() = default;

base::Result<std::shared_ptr<const Pattern>> Pattern::compile_with(std::string_view pattern,
                                                                   uint32_t options) {
  int error = 0;
  size_t place = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options, &error, &place, nullptr);
  if (!code) {
    return base::Failure{
        fmt::format("the pattern \"{}\": {} at byte {}", pattern, message_of(error), place)};
  }
  return std::shared_ptr<const Pattern>(new Pattern(std::make_unique<Code>(code)));
}

base::Result<std::shared_ptr<const Pattern>> Pattern::compile(std::string_view pattern) {
  const auto translated = translate_pattern(pattern);
  if (!translated) {
    return base::Failure{fmt::format("{} in the pattern \"{}\"", translated.reason(), pattern)};
  }
  return compile_with(*translated, PCRE2_UTF | PCRE2_UCP);
}

base::Result<std::shared_ptr<const Pattern>> Pattern::compile_literal(std::string_view text) {
  return compile_with(text, PCRE2_UTF | PCRE2_LITERAL);
}

bool Pattern::find(std::string_view subject, size_t begin, PatternScratch& scratch,
                   Match& match) const {
  PatternScratch::State& state = *scratch.state_;
  const auto text = reinterpret_cast<PCRE2_SPTR>(subject.data());
  const int found = code_->has_jit ? pcre2_jit_match(code_->code, text, subject.size(), begin,
                                                     PCRE2_NO_UTF_CHECK, state.match, state.context)
                                   : pcre2_match(code_->code, text, subject.size(), begin,
                                                 PCRE2_NO_UTF_CHECK, state.match, state.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    throw base::bad_input(
        fmt::format("cannot split a text of {} bytes by the tokenizer's pattern: {}",
                    subject.size(), message_of(found)));
  }
  const size_t* const ends = pcre2_get_ovector_pointer(state.match);
  match = {.begin = ends[0], .end = ends[1]};
  return true;
}

}  // namespace data
