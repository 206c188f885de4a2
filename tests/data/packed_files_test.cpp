// Method: texts are packed here with the libraries themselves, prepared, and read back; then the
// packed bytes are cut and spoilt everywhere.
#include <zlib.h>
#include <zstd.h>

#include "base/hash.h"
#include "data/byte_source.h"
#include "data/fixture.h"
#include "data/prepare.h"
#include "support/catch.h"

using namespace data_test;

namespace {

std::string gzip(const std::string& text) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = uInt(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = uInt(packed.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(packed.size() - stream.avail_out);
  deflateEnd(&stream);
  return packed;
}

std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  const size_t size =
      ZSTD_compress2(context, packed.data(), packed.size(), text.data(), text.size());
  ZSTD_freeCCtx(context);
  REQUIRE(!ZSTD_isError(size));
  packed.resize(size);
  return packed;
}

using Pack = std::string (*)(const std::string&);

class PackedShop {
 public:
  PackedShop() {
    options.inputs = {folder.file("in")};
    options.output_prefix = folder.file("out/data");
    options.threads = 2;
  }
  data::PrepareReport prepare() { return data::prepare(*storage, *tokenizer, options, nullptr); }
  std::vector<std::string> texts() {
    const auto dataset = data::TokenDataset::open(*storage, options.output_prefix);
    std::vector<std::string> result;
    for (int64_t i = 0; i < dataset->document_count(); ++i) {
      std::vector<int32_t> ids(size_t(dataset->document_length(i)));
      dataset->read(i, 0, ids);
      result.push_back(tokenizer->decode(ids));
    }
    return result;
  }
  test::TemporaryFolder folder;
  std::unique_ptr<base::Storage> storage = base::make_disk_storage();
  std::unique_ptr<data::Tokenizer> tokenizer = data::make_tokenizer(*storage, "bytes");
  data::PrepareOptions options;
};

// All of a source, taken in pieces.
std::string drain(data::ByteSource& source, size_t piece) {
  std::string all;
  int64_t position = 0;
  for (source.extend_to(1); !source.window().empty(); source.extend_to(1)) {
    const size_t count = std::min(piece, source.window().size());
    all += source.window().substr(0, count);
    source.skip(count);
    REQUIRE(source.position() >= position);
    position = source.position();
  }
  return all;
}

}  // namespace

TEST_CASE("packed files: every form is read as if it were not packed") {
  const Pack pack = GENERATE(Pack(gzip), Pack(zstd));
  const std::string ending = pack == Pack(gzip) ? ".gz" : ".ZST";
  PackedShop shop;
  const std::string lines = "{\"text\": \"b\"}\n{\"text\": \"c\"}\n";
  write_file(shop.folder.file("in/a.txt" + ending), pack("plain"));
  write_file(shop.folder.file("in/b.JSONL" + ending), pack(lines));
  write_file(shop.folder.file("in/c.json" + ending), pack("[\"d\", {\"text\": \"e\"}]"));
  // The name does not say it, and parts follow each other.
  write_file(shop.folder.file("in/d"), pack("two ") + pack("") + pack("parts"));
  write_file(shop.folder.file("in/e.bin" + ending), pack(std::string("a\0b", 3)));
  write_file(shop.folder.file("in/f" + ending), pack(""));
  write_file(shop.folder.file("in/g" + ending), pack(pack("packed twice")));
  const auto report = shop.prepare();
  REQUIRE(shop.texts() == std::vector<std::string>{"plain", "b", "c", "d", "e", "two parts"});
  REQUIRE(report.files.size() == 3);
  REQUIRE(report.files[0].reason == "binary: byte 1 of it is zero");
  REQUIRE(report.files[1].reason == "empty");
  REQUIRE(report.files[2].reason == "packed twice: unpack it first");
}

TEST_CASE("packed files: larger than the window, in pieces of any size") {
  const Pack pack = GENERATE(Pack(gzip), Pack(zstd));
  base::Random random(1);
  std::string text;
  while (text.size() < 1'500'000) text += std::to_string(random.next_u64()) + "\n";
  const test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  write_file(folder.file("x"), pack(text) + pack(text));
  for (const size_t piece : {size_t{1000}, size_t{300'001}, text.size()}) {
    const auto source = data::open_source(*storage, folder.file("x"));
    REQUIRE(drain(*source, piece) == text + text);
    REQUIRE(source->problem().empty());
  }
  // Zeros fill the last block of a tape.
  if (pack == Pack(gzip)) {
    write_file(folder.file("x"), pack(text) + std::string(700, '\0'));
    const auto source = data::open_source(*storage, folder.file("x"));
    REQUIRE(drain(*source, 1000) == text);
    REQUIRE(source->problem().empty());
  }
}

TEST_CASE("packed files: one that is cut is bad input, or left out, at whatever byte") {
  const Pack pack = GENERATE(Pack(gzip), Pack(zstd));
  PackedShop shop;
  const std::string path = shop.folder.file("in/b.jsonl.x");
  write_file(shop.folder.file("in/a"), "plain");
  const std::string packed = pack("{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  for (size_t size = 4; size < packed.size(); ++size) {
    write_file(path, packed.substr(0, size));
    shop.options.skip_bad_lines = false;
    const base::Error error = error_of([&] { shop.prepare(); });
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(contains(error.what(), path + ": the packed data end early"));
    REQUIRE(!std::filesystem::exists(shop.options.output_prefix + ".idx"));
    REQUIRE(contains(error.hint(), "--skip-bad-lines"));
  }
  shop.options.skip_bad_lines = true;
  const auto report = shop.prepare();
  REQUIRE(shop.texts().front() == "plain");
  REQUIRE(report.files.size() == 1);
  REQUIRE(report.files[0].place == path);
}

TEST_CASE("packed files: spoilt ones are named or read, and nothing worse") {
  const Pack pack = GENERATE(Pack(gzip), Pack(zstd));
  const test::TemporaryFolder folder;
  const auto storage = base::make_disk_storage();
  base::Random random(3);
  std::string text;
  for (int i = 0; i < 300; ++i) text += std::to_string(random.below(50)) + " ";
  const std::string packed = pack(text);
  int named = 0;
  for (int i = 0; i < 600; ++i) {
    std::string spoilt = packed;
    spoilt[4 + random.below(spoilt.size() - 4)] ^= char(1 << random.below(8));
    if (i % 10 == 0) spoilt += "garbage";
    write_file(folder.file("x"), spoilt);
    const auto source = data::open_source(*storage, folder.file("x"));
    const std::string found = drain(*source, 100);
    named += !source->problem().empty();
    // Both formats have a checksum; a few bytes of their headers are nobody's.
    if (source->problem().empty()) REQUIRE(found == text);
  }
  REQUIRE(named > 500);
}

TEST_CASE("prepare: a Parquet table is refused with what to do") {
  PackedShop shop;
  write_file(shop.folder.file("in/a.parquet"), "PAR1...");
  const base::Error error = error_of([&] { shop.prepare(); });
  REQUIRE(error.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(error.what(), "a.parquet: a Parquet table"));
  REQUIRE(contains(error.hint(), "pyarrow"));
}
