// The byte tokenizer: every text is its bytes. It needs no file, knows every language a little, and
// makes tests readable.
#include "data/tokenizer.h"

#include "base/error.h"

namespace data {
namespace {

class ByteTokenizer : public Tokenizer {
 public:
  std::string name() const override { return "bytes"; }
  int64_t vocabulary() const override { return 258; }
  int32_t begin_id() const override { return 256; }
  int32_t end_id() const override { return 257; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = uint8_t(text[i]);
    return ids;
  }

  // A model's vocabulary may be padded to a round number, so ids above 257 are possible and mean
  // nothing either.
  std::string decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id >= 0 && id < 256) text.push_back(char(id));
    }
    return text;
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  throw base::bad_input(fmt::format("there is no tokenizer \"{}\"", name), "there is: bytes");
}

}  // namespace data
