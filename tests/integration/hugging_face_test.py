"""`atoll convert`, both ways: bit by bit, what is refused, what a full disk leaves, and the start of a run from such a folder.

What transformers itself computes is compared where Python has it: run this with the python of an environment with transformers 4
or 5 and torch.
"""

import json
import pathlib
import resource
import signal
import subprocess
import unittest

import hugging_face_folder as hf
from cluster import ATOLL, ClusterTest, checkpoint_files, run_atoll

try:
    import torch
    import transformers
except ImportError:
    transformers = None

TOKENIZERS = pathlib.Path(__file__).parents[1] / "data" / "tokenizers"
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}


class ConvertTest(ClusterTest):
    def convert(self, *arguments, code=0, **popen):
        result = subprocess.run([ATOLL, "convert", *map(str, arguments)], capture_output=True, text=True, **popen)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return json.loads(result.stdout) if code == 0 and "--json" in arguments else result.stderr

    def folder_of(self, name="model", dtype="F32", shards=1, tensors=None, **config):
        config = {**hf.BASE, **config}
        hf.write_model(self.folder / name, config, tensors or hf.random_tensors(config, dtype), shards)
        return self.folder / name

    def trained(self, name="run", steps=3, **settings):
        node = self.start_node(name, solo=True, training__steps=steps, training__batch_rows=64, **settings)
        self.assert_finished(node)
        return node

    def logits(self, checkpoint, ids):
        result = run_atoll("inspect", "logits", checkpoint, "--ids", ",".join(map(str, ids)), "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["logits"]

    def assert_nothing_at(self, path):
        self.assertEqual([found.name for found in path.parent.glob(path.name + "*")], [])


class RoundTripTest(ConvertTest):
    def test_a_trained_model_there_and_back(self):
        run = self.trained().directory
        out, back = self.folder / "out", self.folder / "back"
        report = self.convert(run, "--to", "hf", out, "--json")
        self.assertEqual([report[key] for key in ("step", "which", "shards", "tied")], [3, "inner", 1, False])
        config, tensors = hf.read_model(out)
        self.assertEqual({name: shape for name, (_, shape, _) in tensors.items()}, hf.shapes(config))
        self.assertEqual(report["parameters"], sum(hf.count(shape) for _, shape, _ in tensors.values()))
        self.assertEqual(sorted(path.name for path in out.iterdir()),
                         ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
        for old, new in (("dtype", "torch_dtype"), ("rope_theta", None)):
            self.assertEqual(config[old], config[new] if new else config["rope_parameters"]["rope_theta"])
        self.convert(out, "--from", "hf", back)
        parameters = checkpoint_files(run)[1]["parameters.safetensors"]
        self.assertTrue((back / "parameters.safetensors").read_bytes() == parameters)
        texts = [run_atoll("generate", "--checkpoint", path, "--prompt", "int", "--tokens", 8).stdout for path in (run, back)]
        self.assertEqual(texts[0], texts[1])
        self.assertTrue(texts[0].startswith("int"))
        again = self.folder / "again"
        self.convert(back, "--to", "hf", again)
        for path in out.iterdir():
            self.assertEqual(path.read_bytes(), (again / path.name).read_bytes(), path.name)

    def test_every_shape_comes_back_bit_by_bit(self):
        cases = [dict(), dict(dtype="BF16", shards=3), dict(dtype="F16"), dict(tie_word_embeddings=True, dtype="BF16"),
                 dict(head_dim=6, num_key_value_heads=4), dict(rope_scaling=LLAMA3, shards=2),
                 dict(rope_scaling={"type": "linear", "factor": 4.0}), dict(rope_parameters={"rope_type": "default", "rope_theta": 77.0}),
                 dict(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None)]
        for number, case in enumerate(cases):
            with self.subTest(case):
                source = self.folder_of(f"in{number}", **case)
                native, out = self.folder / f"native{number}", self.folder / f"out{number}"
                report = self.convert(source, "--from", "hf", native, "--json")
                dtype = case.get("dtype", "F32")
                self.assertEqual(report["dtypes"], [dtype])
                self.convert(native, "--to", "hf", out, "--dtype", {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}[dtype],
                             "--shard-gigabytes", 5e-6)
                (given, before), (config, after) = hf.read_model(source), hf.read_model(out)
                self.assertEqual(before, after)
                index = json.loads((out / "model.safetensors.index.json").read_text())
                self.assertEqual(index["metadata"]["total_size"], sum(len(data) for _, _, data in after.values()))
                self.assertEqual(index["weight_map"].keys(), after.keys())
                for name, file in index["weight_map"].items():
                    self.assertIn(name, hf.read_safetensors(out / file))
                for key in hf.BASE.keys() - {"architectures", "model_type", "rope_theta"}:
                    self.assertEqual(config[key], given[key], key)
                theta = given.get("rope_parameters", given)["rope_theta"]
                self.assertEqual((config["rope_theta"], config["rope_parameters"]["rope_theta"]), (theta, theta))
                scaling = dict(given.get("rope_scaling") or {})
                if "type" in scaling:
                    scaling["rope_type"] = scaling.pop("type")
                self.assertEqual(config["rope_scaling"] or {}, scaling)
                rope = {key: value for key, value in config["rope_parameters"].items() if key != "rope_theta"}
                self.assertEqual(rope, scaling or {"rope_type": "default"})

    def test_other_precisions_round_to_the_nearest(self):
        config = {**hf.BASE}
        tensors = hf.random_tensors(config)
        name, shape = "model.norm.weight", (16,)
        numbers = [1 + 2**-9, 1 + 3 * 2**-9, 2**-25, 3 * 2**-25, 65503.0, -0.0, 1e-30, 0.1] + [0.0] * 8
        tensors[name] = ("F32", shape, hf.encode(numbers, "F32"))
        native = self.folder / "native"
        self.convert(self.folder_of(tensors=tensors), "--from", "hf", native)
        expected = {"bf16": [1.0, 1 + 2**-7, 2**-25, 3 * 2**-25, 65536.0, -0.0], "fp16": [1 + 2**-9, 1 + 3 * 2**-9, 0.0, 2**-23,
                                                                                      65504.0, -0.0]}
        for dtype, wanted in expected.items():
            self.convert(native, "--to", "hf", self.folder / dtype, "--dtype", dtype)
            found = hf.read_model(self.folder / dtype)[1][name]
            self.assertEqual(found[2][:2 * len(wanted)], hf.encode(wanted, {"bf16": "BF16", "fp16": "F16"}[dtype]), dtype)

    def test_outer_and_inner(self):
        self.start_coordinator(training__steps=12)
        node = self.start_node("member", training__steps=12, checkpoint__also_hugging_face=5, checkpoint__every_steps=8,
                               checkpoint__keep=2)
        self.assert_finished(node)
        between = node.directory / "checkpoints" / "step-00000008"  # Of two rounds.
        files = checkpoint_files(node.directory, 8)[1]
        self.assertFalse(files["parameters.safetensors"] == files["outer_parameters.safetensors"])
        for which, file in (("inner", "parameters"), ("outer", "outer_parameters"), (None, "outer_parameters")):
            out, back = self.folder / f"out-{which}", self.folder / f"back-{which}"
            self.convert(between, "--to", "hf", out, *(["--which", which] if which else []))
            self.convert(out, "--from", "hf", back)
            self.assertTrue((back / "parameters.safetensors").read_bytes() == files[file + ".safetensors"], which)
        copies = sorted(path.name for path in (node.directory / "hugging_face").iterdir())
        self.assertEqual(copies, ["step-00000010", "step-00000012"])
        self.convert(node.directory, "--to", "hf", self.folder / "bf16", "--dtype", "bf16")
        self.assertEqual(hf.read_model(node.directory / "hugging_face" / copies[-1]), hf.read_model(self.folder / "bf16"))
        self.assertIn("no outer parameters", self.convert(self.folder / "back-inner", "--to", "hf", self.folder / "x", "--which",
                                                          "outer", code=2))

    def test_tokenizers_travel_along(self):
        for name, begin, end in (("llama3", 900, 901), ("gpt2", None, 900), ("qwen2", None, 900)):
            prepared = run_atoll("prepare", "--input", self.folder / "texts", "--output", self.folder / name, "--tokenizer",
                                 TOKENIZERS / f"{name}.json")
            self.assertEqual(prepared.returncode, 0, prepared.stderr)
            sources = json.dumps([{"prefix": str(self.folder / name)}])
            run = self.trained("run-" + name, model__vocabulary=912, data__validation_fraction=0.25, **{"data.sources": sources})
            out, back = self.folder / f"out-{name}", self.folder / f"back-{name}"
            self.convert(run.directory, "--to", "hf", out)
            text = (TOKENIZERS / f"{name}.json").read_bytes()
            self.assertEqual((out / "tokenizer.json").read_bytes(), text)
            ids = {entry["id"]: entry["content"] for entry in json.loads(text)["added_tokens"]}
            end = json.loads((self.folder / f"{name}.json").read_text())["end_id"]
            for file in ("config.json", "generation_config.json"):
                config = json.loads((out / file).read_text())
                self.assertEqual((config["bos_token_id"], config["eos_token_id"]), (begin, end), file)
            config = json.loads((out / "tokenizer_config.json").read_text())
            self.assertEqual((config.get("bos_token"), config["eos_token"]), (ids.get(begin), ids[end]))
            self.convert(out, "--from", "hf", back)
            manifest = json.loads((back / "manifest.json").read_text())
            self.assertEqual((manifest.get("begin_id"), manifest["end_id"]), (begin, end))
            self.assertEqual((back / "tokenizer.json").read_bytes(), text)


class RefusalTest(ConvertTest):
    def test_models_of_another_kind(self):
        cases = [({"model_type": "gpt2"}, "model_type is \"gpt2\""), ({"architectures": ["Qwen2ForCausalLM"]}, "Qwen2ForCausalLM"),
                 ({"attention_bias": True}, "attention_bias is true"), ({"mlp_bias": True}, "mlp_bias is true"),
                 ({"hidden_act": "gelu"}, "hidden_act"), ({"sliding_window": 8}, "sliding_window"),
                 ({"quantization_config": {"bits": 4}}, "quantised"), ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
                 ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "yarn"),
                 ({"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, "dynamic"),
                 ({"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "low_freq_factor is missing"),
                 ({"num_key_value_heads": 3}, "kv_heads = 3 does not divide"), ({"hidden_size": 0}, "hidden_size"),
                 ({"num_hidden_layers": 10**7}, "layers"), ({"hidden_size": 18}, "head_dim"), ({"head_dim": 5}, "odd"),
                 ({"vocab_size": None}, "vocab_size is missing"), ({"hidden_size": "16"}, "hidden_size"),
                 ({"intermediate_size": 25}, "has the shape [24, 16], by config.json it has [25, 16]"),
                 ({"num_hidden_layers": 3}, "no tensor model.layers.2.input_layernorm.weight"),
                 ({"num_hidden_layers": 1}, "model.layers.1"), ]
        tensors = hf.random_tensors(hf.BASE)
        for number, (change, message) in enumerate(cases):
            with self.subTest(change):
                source = self.folder_of(f"bad{number}", tensors=tensors, **change)
                self.assertIn(message, self.convert(source, "--from", "hf", self.folder / "native", code=2))
                self.assert_nothing_at(self.folder / "native")

    def test_tensors_that_do_not_fit(self):
        def changed(change):
            tensors = hf.random_tensors(hf.BASE)
            change(tensors)
            return tensors

        name = "model.layers.0.self_attn.q_proj.weight"
        cases = [(lambda t: t.pop(name), f"no tensor {name}"), (lambda t: t.pop("lm_head.weight"), "no tensor lm_head.weight"),
                 (lambda t: t.update({name: ("I8", (16, 16), bytes(256))}), "the dtype I8"),
                 (lambda t: t.update({name: ("F64", (16, 16), bytes(2048))}), "the dtype F64"),
                 (lambda t: t.update({name: ("F32", (8, 32), bytes(1024))}), "the shape [8, 32]"),
                 (lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": ("F32", (16,), bytes(64))}), "no biases"),
                 (lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": ("F32", (4,), bytes(16))}), "q_norm")]
        for number, (change, message) in enumerate(cases):
            source = self.folder_of(f"bad{number}", tensors=changed(change))
            self.assertIn(message, self.convert(source, "--from", "hf", self.folder / "native", code=2))
        fine = changed(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (2,), bytes(8))}))
        self.convert(self.folder_of("fine", tensors=fine), "--from", "hf", self.folder / "native")

    def test_folders_that_are_not_whole(self):
        source = self.folder_of(shards=3)
        native = self.folder / "native"

        def refused(message, path=source):
            self.assertIn(message, self.convert(path, "--from", "hf", native, code=2))
            self.assert_nothing_at(native)

        shard = source / "model-00002-of-00003.safetensors"
        data = shard.read_bytes()
        shard.unlink()
        refused("model-00002-of-00003.safetensors: the shard is missing")
        shard.write_bytes(data[:-4])
        refused("model-00002-of-00003.safetensors: not a safetensors file")
        shard.write_bytes((source / "model-00001-of-00003.safetensors").read_bytes())
        refused("is in another file as well")
        shard.write_bytes(data)
        index = source / "model.safetensors.index.json"
        text = index.read_text()
        index.write_text(text.replace("model-00002-of-00003.safetensors", "../../secret.safetensors"))
        refused("has no name of a file")
        index.write_text(text[:-1])
        refused("index.json")
        index.unlink()
        refused("there is neither model.safetensors nor model.safetensors.index.json")
        (source / "pytorch_model.bin").write_bytes(b"x")
        refused("only safetensors are read")
        (source / "config.json").write_text("{")
        refused("config.json")
        (source / "config.json").unlink()
        refused("there is no config.json")

    def test_commands_that_mean_nothing(self):
        source = self.folder_of()
        self.convert(source, code=2)
        self.convert(source, "--to", "gguf", self.folder / "x", code=2)
        self.convert(source, "--to", "hf", self.folder / "x", "--from", "hf", self.folder / "y", code=2)
        self.assertIn("neither a checkpoint", self.convert(source, "--to", "hf", self.folder / "x", code=2))
        native = self.folder / "native"
        self.convert(source, "--from", "hf", native)
        self.assertIn("something already", self.convert(source, "--from", "hf", native, code=2))
        self.assertIn("something already", self.convert(native, "--to", "hf", source, code=2))
        (self.folder / "empty").mkdir()
        self.convert(native, "--to", "hf", str(self.folder / "empty") + "/")
        self.convert(source, "--from", "hf", f"{self.folder}/new/folder/")
        self.assertEqual(hf.read_model(self.folder / "empty")[1], hf.read_model(source)[1])
        self.assertTrue((self.folder / "new" / "folder" / "manifest.json").exists())

    def test_a_number_too_large_for_fp16(self):
        tensors = hf.random_tensors(hf.BASE)
        tensors["model.norm.weight"] = ("F32", (16,), hf.encode([65520.0] + [1.0] * 15, "F32"))
        self.convert(self.folder_of(tensors=tensors), "--from", "hf", self.folder / "native")
        text = self.convert(self.folder / "native", "--to", "hf", self.folder / "out", "--dtype", "fp16", code=2)
        self.assertIn("model.norm.weight has the number 65520", text)
        self.assert_nothing_at(self.folder / "out")

    def test_a_full_disk_leaves_nothing(self):
        source = self.folder_of()
        native, out = self.folder / "native", self.folder / "out"
        full = dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)))
        self.assertIn("cannot write", self.convert(source, "--from", "hf", native, code=3, **full))
        self.assert_nothing_at(native)
        self.convert(source, "--from", "hf", native)
        self.assertIn("cannot write", self.convert(native, "--to", "hf", out, code=3, **full))
        self.assert_nothing_at(out)

    def test_what_a_killed_conversion_left_is_no_hindrance(self):
        source = self.folder_of()
        native, out = self.folder / "native", self.folder / "out"
        for path in (native, out):
            path.with_name(path.name + ".partial").mkdir()
            (path.with_name(path.name + ".partial") / "model.safetensors.partial").write_bytes(b"half")
            (path.with_name(path.name + ".partial") / "config.json").write_bytes(b"{")
        self.convert(source, "--from", "hf", native)
        self.convert(native, "--to", "hf", out)
        self.assertEqual(hf.read_model(out)[1], hf.read_model(source)[1])
        self.assertEqual(list(self.folder.glob("*.partial")), [])

    def test_a_stop_leaves_nothing(self):
        config = {**hf.BASE, "vocab_size": 200_000, "hidden_size": 256}
        tensors = {name: ("F32", shape, bytes(4 * hf.count(shape))) for name, shape in hf.shapes(config).items()}
        source = self.folder_of("large", tensors=tensors, vocab_size=200_000, hidden_size=256)
        native = self.folder / "native"
        process = subprocess.Popen([ATOLL, "convert", source, "--from", "hf", native], stderr=subprocess.PIPE, text=True)
        partial = native.with_name("native.partial")
        while not partial.exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        _, text = process.communicate()
        self.assertIn(process.returncode, (0, 3), text)  # 0: it was done before.
        self.assertFalse(partial.exists())
        self.assertEqual(native.exists(), process.returncode == 0)

    def test_a_tokenizer_that_is_not_supported_is_kept(self):
        source = self.folder_of()
        text = json.dumps({"model": {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}})
        (source / "tokenizer.json").write_text(text)
        report = self.convert(source, "--from", "hf", self.folder / "native", "--json")
        self.assertIn("byte_fallback", report["tokenizer_problem"])
        refused = run_atoll("generate", "--checkpoint", self.folder / "native", "--prompt", "x")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("byte_fallback", refused.stderr)
        self.convert(self.folder / "native", "--to", "hf", self.folder / "out")
        self.assertEqual((self.folder / "out" / "tokenizer.json").read_text(), text)


class StartTest(ConvertTest):
    SHAPE = dict(vocab_size=272, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)
    MODEL = {"model.rope_base": 1000, "model.sequence_length": 32}

    def test_a_run_begins_with_it(self):
        source = self.folder_of(dtype="BF16", **self.SHAPE)
        native = self.folder / "native"
        self.convert(source, "--from", "hf", native)
        for number, start in enumerate((source, native)):
            run = self.trained(f"run{number}", steps=1, checkpoint__start_from=start, optimizer__learning_rate=0, **self.MODEL)
            self.assertEqual(checkpoint_files(run.directory)[1]["parameters.safetensors"],
                             (native / "parameters.safetensors").read_bytes())
        again = self.trained("run1", steps=2, changes=["training.steps=2"], checkpoint__start_from=native, **self.MODEL,
                             optimizer__learning_rate=0)
        self.assertIn("going on from step 1", again.tail())

    def test_a_swarm_begins_with_it(self):
        source = self.folder_of(**self.SHAPE)
        start = {"checkpoint.start_from": source, **self.MODEL, "training.steps": 10, "optimizer.learning_rate": 0}
        self.start_coordinator(**start)
        nodes = [self.start_node(name, **start) for name in ("left", "right")]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=1)
        self.convert(source, "--from", "hf", self.folder / "native")
        self.assertEqual(checkpoint_files(nodes[0].directory)[1]["outer_parameters.safetensors"],
                         (self.folder / "native" / "parameters.safetensors").read_bytes())

    def test_another_model_is_refused_by_key(self):
        source = self.folder_of(**self.SHAPE, rope_scaling=LLAMA3)
        node = self.start_node("run", solo=True, checkpoint__start_from=source, **self.MODEL)
        self.assertEqual(node.finish(), 2, node.tail())
        for text in ("model.rope_scaling.kind: here \"none\", there \"llama3\"", "inspect model"):
            self.assertIn(text, node.tail())
        section = json.loads(run_atoll("inspect", "model", source).stdout)
        self.assertEqual(section["rope_scaling"]["original_sequence_length"], 32)
        node = self.start_node("absent", solo=True, checkpoint__start_from=self.folder / "nothing")
        self.assertEqual(node.finish(), 2, node.tail())
        self.assertIn("nothing is not there", node.tail())

    def test_another_tokenizer_is_refused(self):
        source = self.folder_of(**self.SHAPE)
        (source / "tokenizer.json").write_bytes((TOKENIZERS / "gpt2.json").read_bytes())
        node = self.start_node("run", solo=True, checkpoint__start_from=source, **self.MODEL)
        self.assertEqual(node.finish(), 2, node.tail())
        self.assertIn("checkpoint.start_from has tokenizer.json", node.tail())


@unittest.skipUnless(transformers, "there is no transformers")
class TransformersTest(ConvertTest):
    IDS = [1, 7, 3, 39, 0, 12, 12, 5, 30, 2, 8, 21, 33, 4, 17, 9, 26, 11, 38, 6]

    def assert_close(self, atoll, theirs, what):
        self.assertEqual(len(atoll), len(theirs))
        self.assertLessEqual(max(abs(a - b) for a, b in zip(atoll, theirs)), 1e-4, what)
        self.assertGreater(max(theirs) - min(theirs), 0.1)

    def theirs(self, folder, ids):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        self.assertEqual(model.dtype, torch.float32)
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].tolist()

    def test_logits_of_models_that_transformers_made(self):
        llama3 = {**LLAMA3, "rope_theta": 1000.0} if transformers.__version__ >= "5" else LLAMA3
        key = "rope_parameters" if transformers.__version__ >= "5" else "rope_scaling"
        linear = {"rope_type": "linear", "factor": 4.0}
        if transformers.__version__ >= "5":
            linear["rope_theta"] = 10000.0
        cases = [{}, {"tie_word_embeddings": True}, {"head_dim": 6}, {"num_key_value_heads": 4}, {key: llama3}, {key: linear},
                 {"rms_norm_eps": 1e-3}]
        for number, case in enumerate(cases):
            with self.subTest(case):
                settings = {name: value for name, value in hf.BASE.items() if name not in ("architectures", "model_type")}
                torch.manual_seed(number)
                config = transformers.LlamaConfig(**{**settings, "initializer_range": 0.3, **case})
                made = transformers.LlamaForCausalLM(config).to(torch.float32)
                folder, native, out = (self.folder / f"{name}{number}" for name in ("made", "native", "out"))
                made.save_pretrained(folder)
                self.convert(folder, "--from", "hf", native)
                theirs = self.theirs(folder, self.IDS)
                for count in (1, 2, len(self.IDS)):
                    self.assert_close(self.logits(native, self.IDS[:count]), theirs[count - 1], case)
                self.convert(native, "--to", "hf", out, "--shard-gigabytes", 5e-6)
                self.assertEqual(self.theirs(out, self.IDS), theirs)

    def test_a_trained_model_and_its_tokens(self):
        run = self.trained(steps=20, optimizer__learning_rate=1e-2).directory
        out = self.folder / "out"
        self.convert(run, "--to", "hf", out)
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        text = "int function_7(é — 漢字) \t\n"
        ids = tokenizer(text).input_ids
        self.assertEqual(ids, [256, *text.encode()])
        self.assertEqual(tokenizer.decode(ids, skip_special_tokens=True), text)
        self.assertEqual((tokenizer.bos_token_id, tokenizer.eos_token_id), (256, 257))
        theirs = self.theirs(out, ids[:30])
        self.assert_close(self.logits(run, ids[:30]), theirs[-1], "trained")
        model = transformers.AutoModelForCausalLM.from_pretrained(out)
        written = model.generate(torch.tensor([ids[:5]]), max_new_tokens=12, do_sample=False)[0].tolist()
        atoll = run_atoll("generate", "--checkpoint", run, "--prompt", text[:4], "--tokens", 12, "--temperature", 0)
        self.assertEqual(atoll.stdout.rstrip("\n"), tokenizer.decode(written, skip_special_tokens=True).rstrip("\n"))

    def test_tokens_of_bpe(self):
        for name in ("llama3", "gpt2", "qwen2"):
            run_atoll("prepare", "--input", self.folder / "texts", "--output", self.folder / name, "--tokenizer",
                      TOKENIZERS / f"{name}.json")
            sources = json.dumps([{"prefix": str(self.folder / name)}])
            run = self.trained("run-" + name, model__vocabulary=912, data__validation_fraction=0.25, **{"data.sources": sources})
            out = self.folder / f"out-{name}"
            self.convert(run.directory, "--to", "hf", out)
            tokenizer = transformers.AutoTokenizer.from_pretrained(out)
            ids = tokenizer("int function_12(int x)").input_ids
            self.assertEqual(ids[0] == 900, name == "llama3")
            self.assertEqual(tokenizer.decode(ids, skip_special_tokens=True), "int function_12(int x)")
            self.assert_close(self.logits(run.directory, ids), self.theirs(out, ids)[-1], name)


if __name__ == "__main__":
    unittest.main()
