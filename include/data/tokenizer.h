// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace data {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;
  virtual int64_t vocabulary() const = 0;
  virtual int32_t begin_id() const = 0;  // Stands before each document.
  virtual int32_t end_id() const = 0;    // Stands after each document; only ever a target.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  virtual std::string decode(
      const std::vector<int32_t>& ids) const = 0;  // Special ids become nothing.
};

// `name`: "bytes" (ids 0..255 are bytes, 256 begin, 257 end). Anything else is bad_input that names
// what there is.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace data
