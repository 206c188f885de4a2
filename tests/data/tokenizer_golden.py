#!/usr/bin/env python3
"""Ids of the `tokenizers` package for texts that are hard to split, beside Atoll's.

  --write           trains the small tokenizers of tests/data/tokenizers/ and writes golden.json there, which
                    tokenizer_golden_test.cpp reads. What lies there was made with tokenizers 0.23.3.
  --compare ATOLL   prepares the same texts, and random ones, with `atoll prepare` and compares every id with the package
                    that is installed. Exit code 77, as a skipped test has, where there is none.
"""
import argparse
import array
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "tokenizers"
ENDS = {"gpt2": "<|endoftext|>", "llama3": "<|end_of_text|>", "qwen2": "<|endoftext|>", "odd": "<eos>"}

SPACES = "\t\n\v\f\r \x1c\x85\xa0\u1680\u180e\u2000\u2001\u2003\u2007\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
TEXTS = [
    "", " ", "  ", "\n", "\r\n", "\r\n\r\n \n", " \n \n  x", "a", " a", "a ", "  a  ", "   \n\n   b", "\t\tif (x) {\n\t\t\treturn;\n\t\t}\n",
    "Hello, world! It's   a test.", "I'M HE'LL We'Ve DON'T it'S they'RE 'S 's'S''s I'D", "'\u017f it'\u017f x'\u212a \u212aelvin \u017ftop",
    "don\u2019t can\u2018t", "a'", "''''", "'ll'll'LL 'lL", "1", "12", "123", "1234", "12345678901234567890", "3.14159e-10 0x7fff 1,000,000",
    "\u0661\u0662\u0663\u0664 \u096b\u096c \u06f1\u06f2 \u2167 \u00bd\u00b2 \u3007 \u4e00\u4e8c \uff11\uff12\uff13\uff14",
    "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m", "nai\u0308ve cafe\u0301 A\u030angstro\u0308m", "\u212b \u2126 \u00b5 \ufb01 \ufb03 \u01c4",
    "e\u0301\u0323 e\u0323\u0301 \u1ec7 q\u0307\u0323", "\u0301\u0301 x\u0301", "\u0308\u08d2 e\u08d2\u0301 \u0301\u1abf \u09fe\u0327 \U00011935\U00011930", "z" + "\u0351\u036b\u0343" * 12 + "algo",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00 \uac00\u11a8", "\u0958 \u0915\u093c \u0929", "\u05e9\u05c1 \ufb2a \ufb4f",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645 \u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f \ufdfa",
    "\u05e9\u05dc\u05d5\u05dd \u200f(\u05e2\u05d5\u05dc\u05dd)\u200e \u202bx\u202c", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e01\u0e33", "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30c6\u30b9\u30c8\u3067\u3059\u3000\u5168\u89d2",
    "\u306f\u309a \u30cf\u3099 \u3071 \u30d0 \uff8a\uff9e", "\u0b95\u0bca \u0bca \u0d4a \u1026 \u1b06", "\U00020000\U0002a6df \U0002f800 \uf900", "\u12a0\u121b\u122d\u129b \u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u1f00\u03b1\u03b9 \u0399\u0301",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0438\u0306 \u0419", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f \U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3 \U0001f44d\U0001f3fd",
    "\U0001d518\U0001d52b\U0001d526 \U0001d7d8\U0001d7d9 a\u24d0b \U0001f13e", "\x00\x01\x02 \x7f \x1b[31m", "\ue000 \U0010ffff \uffff \U000f0000", "\ufffd\ufffd",
    SPACES, "a".join(SPACES), "".join(c + c for c in SPACES) + "x", " " * 40 + "x", "\n" * 17 + "y", " \n" * 9 + " ", "\xa0\xa0 \xa0x", "\u3000\u3000\u3000\u4e2d",
    "x" * 70, "ab" * 60, "-" * 50 + "\n" + "=" * 33, "!?" * 20 + "\r\n\r\n", "#" * 7 + " heading\n\n* item\n",
    "https://example.org/a_b-c?d=e%20f&g=\u00fc#h", "foo_bar __init__ camelCaseWord SCREAMING_SNAKE x86_64 a\u0332b", "<|endoftext|>", "a<|endoftext|>b <|endoftext|> c<|endoftext|><|endoftext|>",
    "<|begin_of_text|>x<|end_of_text|>\n<|begin_of_text|", "<|im_start|>user\nHi<|im_end|>\n", "<|<|endoftext|>|> <|endoftext", "<eos> <mask>  <mask>x  <mask> <sep>  y<sep>z word words sword word. word\u0301 _word word",
    "a  b   c    d\n\n\n", "\u00e9t\u00e9 e\u0301te\u0301 x\u0439\u043ex \u0438\u0306\u043e", " <mask>\u2003<sep>\u3000z <eos>\t<mask>",
]


def random_text(random_source, length):
    """Characters that mean something to a pattern, to the normal form or to added tokens, and any others that are assigned."""
    pools = ["'stremvdl", "'STREMVDL", " \t\n\r", SPACES, "0123456789\u0661\u00b2\u2167", "abcXYZ_", ".,;!?()[]{}<>|#-+=\\\"`~", "\u0301\u0323\u0308\u0327\u200d\ufe0f", "\u00e9\u00df\u017f\u212a\u0130",
             "\u4e00\u4e8c\u3042\u30a2\uac00\u1100\u1161\u11a8", "\u0627\u0644\u064e\u0651\u05d0\u0928\u094d\u0e01\u0e33", "\U0001f600\U0001f468\u2764\U0001f3fd"]
    words = list(ENDS.values()) + ["<mask>", "<sep>", "word", "<|im_start|>", "\u0439\u043e", " the", "ing", "'ll", "  "]
    parts = []
    while len(parts) < length:
        kind = random_source.random()
        if kind < 0.06:
            parts.append(random_source.choice(words))
        elif kind < 0.16:
            character = chr(random_source.choice((random_source.randrange(0x20, 0x3000), random_source.randrange(0x20, 0x20000))))
            # What one library's Unicode has and another's has not is not ours to test.
            if unicodedata.category(character) not in ("Cs", "Cn"):
                parts.append(character)
        elif kind < 0.22:
            parts.append(random_source.choice(random_source.choice(pools)) * random_source.randrange(2, 9))
        else:
            parts.append(random_source.choice(random_source.choice(pools)))
    return "".join(parts)


def random_texts(seed, count, length):
    source = random.Random(seed)
    return [random_text(source, source.randrange(1, length)) for _ in range(count)]


def training_texts():
    repository = HERE.parent.parent
    documents = [path.read_text(encoding="utf8") for path in [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]]
    return documents + TEXTS * 3


def make_tokenizer(kind):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    numbers = {"llama3": r"\p{N}{1,3}", "qwen2": r"\p{N}"}
    byte_level = pre_tokenizers.ByteLevel
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    tokenizer.decoder = decoders.ByteLevel()
    if kind in numbers:
        pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers[kind] +
                   r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level(add_prefix_space=False, use_regex=False)])
    elif kind == "gpt2":
        tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    else:
        literal = pre_tokenizers.Split("<", behavior="isolated")
        word = pre_tokenizers.Split(Regex(r"\w+|\W"), behavior="removed", invert=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([literal, pre_tokenizers.Digits(individual_digits=True), word,
                                                           byte_level(add_prefix_space=True)])
    if kind in ("qwen2", "odd"):
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=byte_level.alphabet(), show_progress=False,
                                  special_tokens=["<|endoftext|>"] if kind == "gpt2" else [])
    tokenizer.train_from_iterator(training_texts(), trainer)
    if kind == "llama3":
        tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
        begin = "<|begin_of_text|>"
        template = processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin} $B",
                                                 special_tokens=[(begin, tokenizer.token_to_id(begin))])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    elif kind == "qwen2":
        tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    elif kind == "odd":
        tokenizer.add_special_tokens(["<eos>", AddedToken("<mask>", lstrip=True), AddedToken("<sep>", rstrip=True)])
        tokenizer.add_tokens([AddedToken("word", single_word=True), AddedToken("\u0438\u0306\u043e", normalized=True), "   "])
    return tokenizer


def write():
    golden = {"texts": TEXTS + random_texts(1, 30, 40), "tokenizers": {}}
    random_ids = random.Random(2)
    for kind in ENDS:
        tokenizer = make_tokenizer(kind)
        (FOLDER / f"{kind}.json").write_text(tokenizer.to_str() + "\n", encoding="utf8")
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in golden["texts"]]
        cut = [[random_ids.randrange(tokenizer.get_vocab_size()) for _ in range(12)] for _ in range(20)]
        golden["tokenizers"][kind] = {
            "vocabulary": tokenizer.get_vocab_size(), "end": tokenizer.token_to_id(ENDS[kind]), "ids": ids,
            "decoded": [tokenizer.decode(one, skip_special_tokens=True) for one in ids],
            "any_ids": cut, "any_decoded": [tokenizer.decode(one, skip_special_tokens=True) for one in cut]}
    text = json.dumps(golden, separators=(",", ":"), ensure_ascii=True)
    (FOLDER / "golden.json").write_text(text.replace('],"', '],\n"') + "\n")


def prepared_documents(prefix):
    """The documents of a dataset with int32 or uint16 tokens."""
    index = Path(f"{prefix}.idx").read_bytes()
    code, count = index[17], struct.unpack_from("<Q", index, 18)[0]
    tokens = array.array({8: "H", 4: "i"}[code], Path(f"{prefix}.bin").read_bytes())
    documents, begin = [], 0
    for length in struct.unpack_from(f"<{count}i", index, 34):
        documents.append(tokens[begin:begin + length].tolist())
        begin += length
    return documents


def compare(atoll, seed, count):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("skipped: Python has no package tokenizers")
        return 77
    texts = [text for text in TEXTS if text] + random_texts(seed, count, 60) + random_texts(seed + 1, count // 20, 2000)
    texts += ["x" * 100_000, " " * 100_000 + "x", "ab\u0301" * 30_000, "1" * 50_000, "\u4e2d\u6587" * 20_000, "\n" * 30_000]
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "texts.jsonl"
        lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for kind in ENDS:
            path, prefix = FOLDER / f"{kind}.json", Path(folder) / kind
            subprocess.run([atoll, "prepare", "--input", lines, "--output", prefix, "--tokenizer", path, "--begin", "none", "--json"],
                           check=True, stdout=subprocess.DEVNULL)
            tokenizer = Tokenizer.from_file(str(path))
            expected = tokenizer.encode_batch(texts, add_special_tokens=False)
            found = prepared_documents(prefix)
            if len(found) != len(texts):
                raise AssertionError(f"{kind}: {len(found)} documents, expected {len(texts)}")
            for text, ours, theirs in zip(texts, found, expected):
                if ours != theirs.ids + [tokenizer.token_to_id(ENDS[kind])]:
                    differences += 1
                    print(f"{kind}: {text[:200]!r}\n  package {theirs.ids[:80]}\n  atoll   {ours[:80]}")
    print(f"{len(texts)} texts, {len(ENDS)} tokenizers, {differences} differences")
    return 1 if differences else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--compare", metavar="ATOLL")
    parser.add_argument("--seed", type=int, default=3, help="of the random texts")
    parser.add_argument("--count", type=int, default=1000, help="random texts")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if arguments.write:
        write()
    if arguments.compare:
        sys.exit(compare(arguments.compare, arguments.seed, arguments.count))


if __name__ == "__main__":
    main()
