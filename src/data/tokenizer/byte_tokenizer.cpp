// The byte tokenizer: every text is its bytes. It needs no file, knows every language a little, and
// makes tests readable.
#include "data/tokenizer/tokenizers.h"

namespace data {
namespace {

class ByteTokenizer : public Tokenizer {
 public:
  std::string name() const override { return kBytesTokenizer; }
  std::string definition() const override { return {}; }
  int64_t vocabulary() const override { return 258; }
  int32_t begin_id() const override { return 256; }
  int32_t end_id() const override { return 257; }

  void append_ids(std::string_view text, std::vector<int32_t>& ids) const override {
    const size_t first = ids.size();
    ids.reserve(first + text.size() +
                1);  // An end id follows; twice the memory for it would not do.
    ids.resize(first + text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[first + i] = uint8_t(text[i]);
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

std::unique_ptr<Tokenizer> make_byte_tokenizer() {
  return std::make_unique<ByteTokenizer>();
}

}  // namespace data
