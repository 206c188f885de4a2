// Method: whole files are cut in prepare_test.cpp; here random ones, most of them broken, which
// must neither hold it up nor make it skip anything that is not white space or part of an array.
#include "data/json_records.h"

#include <string>

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

TEST_CASE("JSON records: whatever the file, it comes to its end and names lines in order") {
  const uint64_t seed = GENERATE(range(0, 20));
  INFO("seed " << seed);
  base::Random random(seed);
  constexpr std::string_view kLetters = "{}[]\",: \n\\a1";
  for (int file = 0; file < 2000; ++file) {
    std::string content;
    for (uint64_t i = random.below(40); i > 0; --i)
      content += kLetters[random.below(kLetters.size())];
    for (const auto form : {data::JsonRecords::Form::kLines, data::JsonRecords::Form::kValues}) {
      data::MemorySource source(content);
      data::JsonRecords records(source, form, 16);
      size_t kept = 0, count = 0;
      int64_t line = 1;
      while (const auto record = records.next()) {
        REQUIRE(++count <= content.size() + 1);
        REQUIRE(record->line >= line);
        line = record->line;
        // It is a part of the file, at that line.
        REQUIRE(record->text.data() >= content.data() + kept);
        const std::string_view before(content.data(), size_t(record->text.data() - content.data()));
        REQUIRE(1 + std::count(before.begin(), before.end(), '\n') == record->line);
        const std::string_view skipped = before.substr(kept);
        REQUIRE(skipped.find_first_not_of(" \n,[]") == std::string_view::npos);
        kept = before.size() + record->text.size();
      }
      REQUIRE(content.find_first_not_of(" \n,[]", kept) == std::string::npos);
    }
  }
}

TEST_CASE("JSON records: the search for an end that is missing is bounded") {
  // Each of the lines lacks its bracket. Searching to the end of the file from each would take
  // 10^11 steps.
  std::string content;
  for (int i = 0; i < 400000; ++i) content += "{\n";
  data::MemorySource source(content);
  data::JsonRecords records(source, data::JsonRecords::Form::kValues, 100);
  int64_t count = 0;
  while (const auto record = records.next()) count += record->problem != nullptr;
  REQUIRE(count == 400000);
}
