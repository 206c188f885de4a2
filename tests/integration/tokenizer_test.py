"""A run on data of a byte-level BPE: its checkpoints know the tokenizer and need nothing else."""

import json
import pathlib
import shutil
import unittest

from cluster import ClusterTest, run_atoll

TOKENIZERS = pathlib.Path(__file__).parents[1] / "data" / "tokenizers"


class TokenizerTest(ClusterTest):
    def prepare(self, name, *options, output="bpe"):
        result = run_atoll("prepare", "--input", self.folder / "texts", "--output", self.folder / output, "--tokenizer",
                           TOKENIZERS / f"{name}.json", *options)
        self.assertEqual(result.returncode, 0, result.stderr)

    def train(self, directory="run", prefixes=("bpe",), steps=3, **settings):
        sources = json.dumps([{"prefix": str(self.folder / prefix)} for prefix in prefixes])
        return self.start_node(directory, solo=True, training__steps=steps, training__batch_rows=64, model__vocabulary=912,
                               data__validation_fraction=0.25, **{"data.sources": sources, **settings})

    def generate(self, checkpoint, *arguments):
        return run_atoll("generate", "--checkpoint", checkpoint, "--tokens", 8, "--json", *arguments)

    def moved_checkpoint(self, node):
        """The newest one, in a folder by itself; the data are gone."""
        newest = sorted((node.directory / "checkpoints").glob("step-*"))[-1]
        alone = self.folder / "alone"
        shutil.move(newest, alone)
        for file in self.folder.glob("bpe.*"):
            file.unlink()
        return alone

    def test_a_checkpoint_alone_writes_text(self):
        self.prepare("llama3")
        node = self.train(steps=30)
        self.assert_finished(node)
        alone = self.moved_checkpoint(node)
        self.assertEqual((alone / "tokenizer.json").read_bytes(), (TOKENIZERS / "llama3.json").read_bytes())
        for prompt in ("int function_", ""):
            written = self.generate(alone, "--prompt", prompt)
            self.assertEqual(written.returncode, 0, written.stderr)
            self.assertTrue(json.loads(written.stdout)["text"])

    def test_no_begin_token_needs_a_prompt(self):
        self.prepare("gpt2")
        node = self.train()
        self.assert_finished(node)
        alone = self.moved_checkpoint(node)
        self.assertEqual(self.generate(alone, "--prompt", "int").returncode, 0)
        refused = self.generate(alone)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no begin token", refused.stderr)

    def test_a_damaged_tokenizer_damages_the_checkpoint(self):
        self.prepare("gpt2")
        node = self.train()
        self.assert_finished(node)
        alone = self.moved_checkpoint(node)
        text = (alone / "tokenizer.json").read_text()
        for damage, found in ((text.replace("Ġ", "ġ", 1), "expected SHA-256"), (text[:-1], "bytes, found"), (None, "missing")):
            (alone / "tokenizer.json").unlink()
            if damage:
                (alone / "tokenizer.json").write_text(damage)
            else:
                self.assertFalse((alone / "tokenizer.json").exists())
            refused = self.generate(alone, "--prompt", "x")
            self.assertEqual(refused.returncode, 2)
            self.assertIn("tokenizer.json", refused.stderr)
            self.assertIn(found, refused.stderr)
            (alone / "tokenizer.json").touch()

    def test_a_resumed_run_keeps_it(self):
        self.prepare("llama3")
        self.assert_finished(self.train())
        (self.folder / "bpe.tokenizer.json").unlink()
        node = self.train(steps=6, changes=["training.steps=6"])
        self.assert_finished(node)
        self.assertEqual(self.generate(node.directory, "--prompt", "x").returncode, 0)

        self.prepare("qwen2")
        other = self.train(changes=["training.steps=9"])
        self.assertEqual(other.finish(), 2, other.tail())
        self.assertIn("the tokenizers differ", other.tail())
        self.assertIn("the checkpoint of step 6", other.tail())

    def test_a_mixture_has_one_tokenizer(self):
        self.prepare("llama3")
        self.prepare("gpt2", output="other")
        node = self.train(prefixes=("bpe", "other"))
        self.assertEqual(node.finish(), 2, node.tail())
        for text in ("the tokenizers differ", "bpe has llama3.json", "other has gpt2.json", "Hint"):
            self.assertIn(text, node.tail())

    def test_data_that_do_not_know(self):
        self.prepare("gpt2")
        for name in ("bpe.json", "bpe.tokenizer.json"):
            (self.folder / name).unlink()
        node = self.train()
        self.assert_finished(node)
        refused = self.generate(node.directory, "--prompt", "x")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--tokenizer", refused.stderr)
        named = self.generate(node.directory, "--prompt", "x", "--tokenizer", TOKENIZERS / "gpt2.json")
        self.assertEqual(named.returncode, 0, named.stderr)
        large = self.folder / "large.json"
        tokenizer = json.loads((TOKENIZERS / "gpt2.json").read_text())
        tokenizer["added_tokens"].append({"id": 5000, "content": "<x>", "special": True})
        large.write_text(json.dumps(tokenizer))
        refused = self.generate(node.directory, "--prompt", "x", "--tokenizer", large)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("5001 ids, but the model knows 912", refused.stderr)

        named = self.train("named", data__tokenizer=TOKENIZERS / "gpt2.json")
        self.assert_finished(named)
        self.assertEqual(self.generate(named.directory, "--prompt", "x").returncode, 0)


if __name__ == "__main__":
    unittest.main()
