#!/usr/bin/env python3
"""Megabytes of text per second and core: `atoll prepare` beside the package `tokenizers`, in turn on the same texts.

Trains a byte-level BPE of Llama 3's form on half of the texts unless --tokenizer names one. The package encodes lists of documents
(encode_batch_fast where it has it) on one thread, and only that is timed; Atoll's time is that of reading JSON lines, encoding on one
thread, and writing the dataset. Both give the same number of tokens, which is checked. Prints one JSON line.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def read_texts(folders, megabytes):
    """Documents of at most 16 KiB, every third file of the folders in sorted order, so that all of them are met."""
    texts, size = [], 0
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
    for path in paths[::3]:
        try:
            text = path.read_bytes().decode("utf8")
        except (OSError, UnicodeDecodeError):
            continue
        if "\0" in text:
            continue
        texts += [text[i:i + 16384] for i in range(0, len(text), 16384)]
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    return texts


def train(texts, vocabulary, path):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts[::2], trainer)
    tokenizer.add_special_tokens(["<|end_of_text|>"])
    tokenizer.save(str(path))


def time_package(path, texts):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(path))  # Anew each time: its words are not known yet, as Atoll's are not.
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    begin = time.perf_counter()
    tokens = sum(len(one) for one in encode(texts, add_special_tokens=False))
    return time.perf_counter() - begin, tokens


def time_atoll(atoll, path, lines, output):
    command = [atoll, "prepare", "--input", lines, "--output", output, "--tokenizer", path, "--begin", "none", "--threads", "1", "--json"]
    report = json.loads(subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE).stdout)
    return report["seconds"], report["tokens"] - report["documents"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", required=True, help="the built executable")
    parser.add_argument("--texts", nargs="+", default=["/usr/include", "/usr/share/doc"], help="folders")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json instead of a trained one")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    texts = read_texts(arguments.texts, arguments.megabytes)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.tokenizer or Path(folder) / "tokenizer.json"
        if not arguments.tokenizer:
            train(texts, arguments.vocabulary, path)
        lines = Path(folder) / "texts.jsonl"
        lines.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf8")
        pairs = []
        for _ in range(arguments.repetitions):
            (theirs, their_tokens), (ours, our_tokens) = (time_package(path, texts),
                                                          time_atoll(arguments.atoll, path, lines, Path(folder) / "out"))
            if their_tokens != our_tokens:
                raise SystemExit(f"the package makes {their_tokens} tokens, atoll {our_tokens}")
            pairs.append((theirs, ours))
    import tokenizers
    print(json.dumps({
        "megabytes": megabytes, "documents": len(texts), "tokens": our_tokens, "package": tokenizers.__version__,
        "package_megabytes_per_second": megabytes / statistics.median(theirs for theirs, _ in pairs),
        "atoll_megabytes_per_second": megabytes / statistics.median(ours for _, ours in pairs),
        "ratio": statistics.median(theirs / ours for theirs, ours in pairs),
        "ratio_lowest": min(theirs / ours for theirs, ours in pairs)}))


if __name__ == "__main__":
    main()
