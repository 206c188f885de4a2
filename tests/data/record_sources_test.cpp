// Method: the same file once in memory and once through a window that grows by a few bytes at a
// time must give the same records, whatever is in it.
#include "base/hash.h"
#include "data/fixture.h"
#include "data/json_records.h"
#include "data/text_records.h"
#include "support/catch.h"

using namespace data_test;

namespace {

class DripSource : public data::ByteSource {
 public:
  DripSource(std::string content, uint64_t seed) : content_(std::move(content)), random_(seed) {}
  void extend() override {
    REQUIRE(!is_whole_);
    const size_t end = std::min(content_.size(), end_ + 1 + random_.below(5));
    // The window moves, as that of an unpacked file does, so that old views are seen to be old.
    bytes_ =
        std::make_unique<std::string>(std::string(window_) + content_.substr(end_, end - end_));
    window_ = *bytes_;
    end_ = end;
    is_whole_ = end == content_.size() && random_.below(2) == 0;
  }
  bool stays() const override { return false; }
  int64_t position() const override { return int64_t(end_); }

 private:
  const std::string content_;
  base::Random random_;
  std::unique_ptr<std::string> bytes_;
  size_t end_ = 0;
};

std::vector<std::string> all_json(data::ByteSource& source, data::JsonRecords::Form form) {
  std::vector<std::string> result;
  data::JsonRecords records(source, form, 16);
  while (const auto record = records.next()) {
    // Of what is lost only the beginning may be at hand, and of a long line its length is not
    // known.
    const bool is_lost = record->problem || record->text.size() > 16;
    result.push_back(fmt::format("{} {} {}", record->line, record->is_element,
                                 is_lost ? "lost" : std::string(record->text)));
  }
  return result;
}

std::vector<std::string> all_text(data::ByteSource& source, const std::string& separator) {
  std::vector<std::string> result;
  data::TextRecords records(source, separator, 7);
  while (const auto record = records.next())
    result.push_back(fmt::format("{} {}", record->is_cut, record->text));
  return result;
}

}  // namespace

TEST_CASE("records: a window that grows gives what the whole file gives") {
  const uint64_t seed = GENERATE(range(0, 10));
  INFO("seed " << seed);
  base::Random random(seed);
  constexpr std::string_view kLetters = "{}[]\",: \n\\a1\xe2\x82\xac";
  for (uint64_t file = 0; file < 1000; ++file) {
    std::string content;
    for (uint64_t i = random.below(60); i > 0; --i)
      content += kLetters[random.below(kLetters.size())];
    INFO(content);
    for (const auto form : {data::JsonRecords::Form::kLines, data::JsonRecords::Form::kValues}) {
      data::MemorySource memory(content);
      DripSource drip(content, file);
      REQUIRE(all_json(drip, form) == all_json(memory, form));
    }
    for (const char* separator : {"", "\n", ",:", "aaa"}) {
      data::MemorySource memory(content);
      DripSource drip(content, file);
      REQUIRE(all_text(drip, separator) == all_text(memory, separator));
    }
  }
}
