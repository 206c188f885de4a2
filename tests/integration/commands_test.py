"""Every command that reports something does so as JSON, with the keys that scripts rely on."""

import hashlib
import json
import pathlib
import re
import unittest

from cluster import ClusterTest, run_atoll


class CommandsTest(ClusterTest):
    def json_of(self, *arguments):
        result = run_atoll(*arguments, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout.splitlines()[-1])

    def test_prepare_and_inspect_data_agree(self):
        report = self.json_of("prepare", "--input", self.folder / "texts", "--output", self.folder / "again")
        shown = self.json_of("inspect", "data", self.folder / "again")
        self.assertEqual(report["tokens"], shown["tokens"])
        self.assertEqual(report["tokens"], report["bytes"] + 2 * report["documents"])
        self.assertEqual(shown["tokenizer"], "bytes")
        self.assertEqual((shown["smallest_id"], shown["largest_id"]), (10, 257))

    def test_a_trained_model_evaluates_and_writes(self):
        node = self.start_node("run", solo=True, training__steps=300, optimizer__learning_rate=1e-2)
        self.assert_finished(node)
        summary = node.lines("summary")[-1]
        report = self.json_of("evaluate", "--checkpoint", node.directory, "--rows", 8)
        self.assertAlmostEqual(report["loss"], summary["validation_loss_after"], places=4)
        self.assertEqual(report["step"], 300)
        written = self.json_of("generate", "--checkpoint", node.directory, "--prompt", "int f", "--tokens", 60, "--seed", 3)
        again = self.json_of("generate", "--checkpoint", node.directory, "--prompt", "int f", "--tokens", 60, "--seed", 3)
        self.assertEqual(written, again)
        self.assertTrue(written["text"])
        shown = self.json_of("inspect", "checkpoint", node.directory)
        self.assertEqual(shown["step"], 300)

    def test_evaluate_takes_the_runs_hold_out(self):
        other = self.folder / "other"
        lines = "".join(json.dumps({"text": line}) + "\n" for line in self.CORPUS[60000:90000].splitlines())
        (self.folder / "more.jsonl").write_text(lines)
        self.json_of("prepare", "--input", self.folder / "more.jsonl", "--output", other)
        sources = [{"prefix": str(other), "weight": 1}, {"prefix": str(self.folder / "corpus"), "weight": 2}]
        settings = {"seed": 5, "data.sources": json.dumps(sources), "data.validation_fraction": 0.1}
        node = self.start_node("run", solo=True, training__steps=3, **settings)
        self.assert_finished(node)
        loss = node.lines("summary")[-1]["validation_loss_after"]
        evaluate = ["evaluate", "--checkpoint", node.directory, "--rows", 8]
        self.assertAlmostEqual(self.json_of(*evaluate)["loss"], loss, places=4)

        for prefix in (other, self.folder / "corpus"):
            for ending in ("bin", "idx", "json"):
                prefix.with_suffix("." + ending).rename(self.folder / f"moved_{prefix.name}.{ending}")
        gone = run_atoll(*evaluate)
        self.assertEqual(gone.returncode, 2)
        self.assertIn(f"dataset {other} is not here", gone.stderr)
        moved = ["--data", self.folder / "moved_other", self.folder / "moved_corpus"]
        self.assertAlmostEqual(self.json_of(*evaluate, *moved)["loss"], loss, places=4)
        for change, is_leak in [(["--seed", 6], True), (["--validation-fraction", 0.2], True),
                                (["--validation-fraction", 0.05], False)]:
            result = run_atoll(*evaluate, *moved, *change)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual("was trained on may count" in " ".join(result.stderr.split()), is_leak, result.stderr)

    def test_evaluate_of_a_checkpoint_that_does_not_know_its_data(self):
        node = self.start_node("run", solo=True, training__steps=3)
        self.assert_finished(node)
        path, = node.directory.glob("checkpoints/step-*/manifest.json")
        text = re.sub(r'  "data_config": .*\n', "", path.read_text())
        hashed = text[:-68]  # Then the hash of it, and four bytes.
        path.write_text(hashed + hashlib.sha256(hashed.encode()).hexdigest() + text[-4:])
        evaluate = ["evaluate", "--checkpoint", node.directory]
        refused = run_atoll(*evaluate)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("does not say on what data", refused.stderr)
        accepted = run_atoll(*evaluate, "--data", self.folder / "corpus")
        self.assertEqual(accepted.returncode, 0, accepted.stderr)
        self.assertIn("does not say which documents", accepted.stderr)

    def test_metrics_have_the_promised_keys(self):
        self.start_coordinator()
        node = self.start_node("run", checkpoint__every_steps=10)
        self.assert_finished(node)
        promised = {
            "inner_step": "step loss z_loss grad_norm lr tokens tokens_per_second mfu seconds",
            "round": "round fragment epoch members weight_tokens digest bytes_sent bytes_received seconds exposed_seconds "
                     "codec plan begun_step applied_step overlap_steps encode_seconds reduce_seconds wait_seconds "
                     "summed_chunks mean_norm momentum_norm contributions",
            "membership": "epoch members",
            "evaluation": "step validation_loss",
            "checkpoint": "step directory bytes seconds",
            "summary": "step tokens finished utilisation",
        }
        for event, keys in promised.items():
            lines = node.lines(event)
            self.assertTrue(lines, event)
            for line in lines:
                self.assertEqual([key for key in keys.split() if key not in line], [], event)

    def test_inspect_config_counts(self):
        report = self.json_of("inspect", "config", self.config)
        block = (4 + 2 * 2) * 8 * 32 + 32 * 32 + 3 * 64 * 32 + 2 * 32
        self.assertEqual(report["parameters"], 2 * block + 2 * 272 * 32 + 32)

    def test_inspect_config_plans_the_memory_of_the_10b_model(self):
        config = pathlib.Path(__file__).parents[2] / "configs" / "intellect-1-10b.json"
        report = self.json_of("inspect", "config", config)
        self.assertEqual(report["parameters"], 10_211_381_248)
        self.assertAlmostEqual(report["flops_per_token_palm"] / 1e9, 75.03, places=2)
        plans = report["memory_plans"]
        self.assertEqual([(plan["gpus"], plan["gib_per_gpu"]) for plan in plans], [(1, 78), (1, 139), (8, 78)])
        for plan in plans:
            self.assertTrue(plan["fits"], plan)
            self.assertEqual(sum(plan["parts"].values()), plan["bytes_per_gpu"])
            self.assertEqual(plan["host_bytes"], 8 * report["parameters"])
        self.assertEqual([plan["policy"].startswith("lean") for plan in plans], [True, True, False])
        text = run_atoll("inspect", "config", config).stdout
        for expected in ("10211381248 parameters", "1 GPU of 78 GiB", "8 GPUs of 78 GiB", "predicted"):
            self.assertIn(expected, text)

    def test_simulate_and_inspect_say_the_same_of_the_10b_model(self):
        config = pathlib.Path(__file__).parents[2] / "configs" / "intellect-1-10b.json"
        plan = self.json_of("inspect", "config", config)["memory_plans"][2]
        simulate = ["simulate", "--config", config, "--nodes", 14, "--rate-mbit", 100]
        report = self.json_of(*simulate)
        self.assertEqual(report["step_seconds"], [plan["predicted_step_seconds"]])
        for key in ("nodes", "utilisation", "exposed_seconds_per_round", "gigabytes_per_day", "floor_mbit"):
            self.assertEqual(report[key], plan["swarm"][key], key)
        self.assertGreater(self.json_of(*simulate, "--step-seconds", 15.2)["utilisation"], 0.99, "as the preset promises")
        # Blocking, by hand: 8.0625 bits, 26/14 of which leave each node in 100 steps.
        steps, exchange = 100 * 15.2, 10_211_381_248 * 8.0625 * 26 / 14 / 100e6
        blocking = [word for pair in ("inner_steps=100", "fragments=1", "codec=int8", "overlap_steps=0", "overlap_steps_max=0")
                    for word in ("--set", f"outer.{pair}")]
        report = self.json_of(*simulate, *blocking, "--step-seconds", 15.2, "--price-per-gb", 0.05)
        self.assertAlmostEqual(report["utilisation"], steps / (steps + exchange), places=4)
        self.assertAlmostEqual(report["price_per_day"], 0.05 * report["gigabytes_per_day"])
        streaming = [*blocking, "--set", "outer.fragments=14", "--set", "outer.overlap_steps=4", "--set", "outer.overlap_steps_max=12"]
        for share, utilisation in [(1.5, 1), (0.7, 0.7)]:
            rate = ["--rate-mbit", share * report["floor_mbit"]]
            found = self.json_of(*simulate[:-2], *rate, "--step-seconds", 15.2, *streaming)
            self.assertAlmostEqual(found["utilisation"], utilisation, places=3)
        refused = run_atoll(*simulate, "--step-seconds", 1, 2)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("expected one number or 14, found 2", refused.stderr)

    def test_bench_step_reports_every_key(self):
        report = self.json_of("bench", "step", "--config", self.config, "--steps", 2, "--document-tokens", 0,
                              "--extrapolate-blocks", 6)
        for key in ("device model parameters tokens_per_second tflops_per_second gemm_tflops_per_second gemm_shapes "
                    "fraction_of_gemm_rate mfu_palm mfu_causal peak_memory_bytes policy parts device_used_bytes").split():
            self.assertIn(key, report)
        for key in ("ceiling_error", "mfu_inside_documents"):
            self.assertNotIn(key, report)
        self.assertGreater(report["setup_seconds"], report["ceiling_seconds"])
        self.assertAlmostEqual(sum(part["seconds"] for part in report["parts"]) + report["unattributed_seconds"],
                               report["timed_step_seconds"])
        for part in report["parts"]:
            self.assertLess(part["lost_seconds"], part["seconds"], part)
            self.assertGreater(part["bytes"], 0, part)
        six = report["extrapolation"]
        self.assertEqual(six["blocks"], 6)
        self.assertGreater(six["step_seconds"], report["step_seconds"])
        self.assertLess(six["tokens_per_second"], report["tokens_per_second"])
        names = [part["name"] for part in report["parts"]]
        self.assertIn("attention backward", names)
        self.assertTrue(any(name.startswith("product") for name in names))
        self.assertGreater(report["tokens_per_second"], 0)
        self.assertEqual([report[key] for key in ("ranks", "gathered_bytes", "reduced_bytes")], [1, 0, 0])

    def test_bench_step_counts_packed_rows_only_inside_documents(self):
        report = self.json_of("bench", "step", "--config", self.config, "--steps", 1, "--document-tokens", 8)
        for key in ("mfu_palm", "mfu_causal"):
            self.assertNotIn(key, report)
        self.assertGreater(report["mfu_inside_documents"], 0)
        self.assertAlmostEqual(report["mfu_inside_documents"] * report["peak_tflops_per_second"], report["tflops_per_second"])

    def test_bench_step_measures_what_ranks_move_and_hold(self):
        held = {}
        # Half of each tensor crosses a rank's link: of the weights, and of the gradients; of their sum both ways.
        for sharding, gathered, reduced in (("gradients", 0.5, 0.5), ("replicated", 0, 1)):
            report = self.json_of("bench", "step", "--config", self.config, "--steps", 1, "--ranks", 2, "--set",
                                  "training.batch_rows=64", "--set", f"node.sharding={sharding}")
            self.assertEqual(report["ranks"], 2)
            model_bytes = 4 * report["parameters"]
            for key, share in (("gathered_bytes", gathered), ("reduced_bytes", reduced)):
                self.assertAlmostEqual(report[key], share * model_bytes, delta=0.01 * model_bytes, msg=f"{sharding}: {key}")
            held[sharding] = report["bytes_per_rank"]
            planned = report["planned_bytes_per_rank"]
            self.assertAlmostEqual(held[sharding], planned, delta=0.01 * planned, msg=sharding)
            self.assertGreater(report["exposed_communication_seconds"], 0)
        self.assertLess(held["gradients"], held["replicated"])

    def test_bench_step_refuses_numbers_of_ranks_that_cannot_be(self):
        for ranks in (0, 65):
            result = run_atoll("bench", "step", "--config", self.config, "--ranks", ranks)
            self.assertEqual(result.returncode, 2, result.stderr)
            for word in ("--ranks", "1", "64"):
                self.assertIn(word, result.stderr)


if __name__ == "__main__":
    unittest.main()
