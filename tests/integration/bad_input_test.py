"""Whatever is wrong: one clear message with a hint, the right exit code, nothing lost or half written."""

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import unittest

from cluster import ClusterTest, run_atoll, wait_until


class BadInputTest(ClusterTest):
    def fails(self, code, words, *arguments):
        result = run_atoll(*arguments)
        self.assertEqual(result.returncode, code, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        return result.stderr

    def train(self, *settings):
        arguments = ["train", "--config", self.config, "--set", f"node.run_directory={self.folder / 'run'}"]
        for setting in settings:
            arguments += ["--set", setting]
        return arguments

    def test_unknown_key_names_the_nearest(self):
        self.fails(2, ["optimizer.learning_rat", "did you mean", "learning_rate"], *self.train("optimizer.learning_rat=1"))

    def test_value_out_of_range(self):
        self.fails(2, ["training.steps", "found 0"], *self.train("training.steps=0"))

    def test_ranks_that_cannot_be(self):
        self.fails(2, ["node.ranks", "0 to 64", "found 65"], *self.train("node.ranks=65"))
        self.fails(2, ["node.sharding", "replicated, gradients, full", "half"], *self.train("node.sharding=half"))

    def test_lean_is_for_one_rank(self):
        self.fails(2, ["node.memory is lean", "node.ranks is 2", "Hint"],
                   *self.train("node.memory=lean", "node.ranks=2", "training.micro_batch_rows=192"))

    def test_config_that_is_no_json(self):
        self.config.write_text('{"name": ')
        self.fails(2, [str(self.config)], *self.train())

    def test_missing_config(self):
        self.fails(2, ["nowhere.json"], "train", "--config", "nowhere.json")

    def test_missing_dataset(self):
        self.fails(2, ["nowhere.idx"], *self.train('data.sources=[{"prefix": "nowhere"}]'))

    def test_truncated_dataset(self):
        path = self.folder / "corpus.bin"
        path.write_bytes(path.read_bytes()[:-1000])
        self.fails(2, ["corpus.idx", ".bin file", "Hint"], *self.train())

    def test_a_dataset_that_the_disk_no_longer_gives(self):
        node = self.start_node("run", solo=True, training__steps=1000000)
        node.wait_for_step(2)
        os.truncate(self.folder / "corpus.bin", 0)  # Its pages are gone from the mapping, as those of a broken disk are.
        self.assertEqual(node.finish(), 3, node.tail())
        self.assertIn("mapped file cannot be read", node.tail())

    def test_vocabulary_that_does_not_fit(self):
        self.fails(2, ["vocabulary", "Hint"], *self.train("model.vocabulary=128"))

    def spoil_corpus(self, first_byte):
        """0xff from there on, in place: each id is then 65535."""
        with open(self.folder / "corpus.bin", "r+b") as file:
            file.seek(0, 2)
            count = file.tell() - first_byte
            file.seek(first_byte)
            file.write(b"\xff" * count)

    def test_a_token_out_of_range_stops_the_start(self):
        self.spoil_corpus((self.folder / "corpus.bin").stat().st_size - 2)
        text = self.fails(2, ["document 39", "token id 65535", "vocabulary has 272", "from 10 to 65535", "Hint"], *self.train())
        self.assertNotIn("step 0", text)
        shown = json.loads(run_atoll("inspect", "data", self.folder / "corpus", "--json").stdout)
        self.assertEqual(shown["largest_id"], 65535)

    def test_a_dataset_twice_is_refused(self):
        for ending in ("bin", "idx", "json"):
            (self.folder / f"copy.{ending}").write_bytes((self.folder / f"corpus.{ending}").read_bytes())
        sources = json.dumps([{"prefix": str(self.folder / name)} for name in ("corpus", "copy")])
        self.fails(2, ["corpus and ", "copy hold the same documents", "Hint"], *self.train(f"data.sources={sources}"))

    def test_an_error_after_the_first_step_saves_first(self):
        node = self.start_node("run", solo=True, training__steps=100000)
        node.wait_for_step(3)
        self.spoil_corpus(0)
        self.assertEqual(node.finish(), 2, node.tail())
        self.assertIn("token id 65535", node.tail())
        last = node.lines("inner_step")[-1]["step"]
        report = json.loads(run_atoll("inspect", "checkpoint", node.directory, "--json").stdout)
        self.assertEqual(report["step"], last)

    def test_corrupt_checkpoint(self):
        node = self.start_node("run", solo=True, training__steps=4)
        self.assert_finished(node)
        newest = sorted((node.directory / "checkpoints").glob("step-*"))[-1]
        file = newest / "parameters.safetensors"
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
        self.fails(2, ["parameters.safetensors", "Hint"], *self.train("training.steps=4"))
        self.fails(2, ["parameters.safetensors"], "inspect", "checkpoint", newest)

    def test_full_disk_keeps_the_last_checkpoint(self):
        node = self.start_node("run", solo=True, training__steps=40, checkpoint__every_steps=5)
        node.wait_for_step(12)
        node.kill()
        before = {path: path.read_bytes() for path in (node.directory / "checkpoints").glob("step-*[0-9]/*")}
        self.assertTrue(before)
        # A limit on the size of files stands in for a full disk: the next checkpoint cannot be written.
        limit = max(len(data) for data in before.values()) // 2
        command = [os.environ["ATOLL"], *map(str, self.train("training.steps=40", "checkpoint.every_steps=5"))]
        result = subprocess.run(command, capture_output=True, text=True,
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("Hint", result.stderr)
        for path, data in before.items():
            self.assertEqual(path.read_bytes(), data, path)
        again = self.start_node("run", solo=True, training__steps=40, checkpoint__every_steps=5)
        self.assert_finished(again)

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.fails(2, [address, "in use"], "coordinate", "--config", self.config, "--listen", address)
            self.fails(2, [address, "in use"], *self.train(f"node.listen={address}", "swarm.coordinator=127.0.0.1:1"))

    def test_coordinator_that_is_not_there(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # Bound but not listening: dialling it is refused.
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            self.fails(3, ["coordinator"],
                       *self.train(f"swarm.coordinator={address}", "swarm.coordinator_patience_seconds=1", "swarm.dead_seconds=1"))

    def test_a_node_with_another_config_is_rejected(self):
        self.start_coordinator(swarm__start_members=1)
        text = self.fails(2, ["config"], *self.train(f"swarm.coordinator={self.address}", "optimizer.learning_rate=0.5"))
        self.assertIn("reject", text.lower())

    def test_garbage_on_the_ports_drops_that_connection_only(self):
        self.start_coordinator(swarm__start_members=2, training__steps=200)
        nodes = [self.start_node(name, training__steps=200) for name in "ab"]
        nodes[0].wait_for_round(2)
        host, port = self.address.rsplit(":", 1)
        for garbage in [b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"ATL1" + b"\xff" * 60, b"ATL1" + bytes(60)]:
            with socket.create_connection((host, int(port)), timeout=30) as link:
                link.sendall(garbage)
                try:
                    self.assertEqual(link.recv(1024), b"", "the connection is closed without an answer")
                except ConnectionResetError:
                    pass
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=40)

    def test_prepare_without_input(self):
        self.fails(2, ["nowhere"], "prepare", "--input", "nowhere", "--output", self.folder / "x")

    def test_prepare_names_what_it_leaves_out(self):
        texts = self.folder / "mixed"
        texts.mkdir()
        (texts / "a.jsonl").write_text('{"text": "good"}\n{"text": 3}\nbad\n')
        (texts / "b.gz").write_bytes(b"\x1f\x8b\x08\x00")
        arguments = ["prepare", "--input", texts, "--output", self.folder / "x"]
        self.fails(2, ["a.jsonl:2: text: ", "--skip-bad-lines"], *arguments)
        self.assertFalse((self.folder / "x.idx").exists())
        result = run_atoll(*arguments, "--skip-bad-lines")
        self.assertEqual(result.returncode, 0, result.stderr)
        for words in ["a.jsonl:2: text: ", "a.jsonl:3: ", "b.gz: the packed data end early", "1 files and 2 bad lines left out"]:
            self.assertIn(words, result.stderr)
        report = json.loads(run_atoll(*arguments, "--skip-bad-lines", "--json").stdout)
        self.assertEqual((report["documents"], report["skipped_lines"], report["skipped_files"]), (1, 2, 1))
        self.assertEqual([line["place"] for line in report["first_skipped_lines"]], [f"{texts}/a.jsonl:{n}" for n in (2, 3)])
        self.assertEqual([line["place"] for line in report["left_out"]], [f"{texts}/b.gz"])

    def prepare_large(self, stderr=subprocess.PIPE, **process):
        """A started `prepare` of 400 MB of text in lines of 1 MB."""
        large = self.folder / "large.txt"
        with open(large, "wb") as file:
            for _ in range(400):
                file.write(b"x" * 999_999 + b"\n")
        command = [os.environ["ATOLL"], "prepare", "--input", large, "--output", self.folder / "large", "--threads", "2"]
        return subprocess.Popen([*map(str, command)], stderr=stderr, text=True, **process)

    def test_a_large_text_is_prepared_in_little_memory(self):
        limit = 2**30  # Of memory of its own: ten times the longest document, and the libraries'. All ids have 1.6 GB.
        process = self.prepare_large(env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        errors = process.communicate()[1]
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("became several documents", errors)
        shown = json.loads(run_atoll("inspect", "data", self.folder / "large", "--json").stdout)
        self.assertEqual(shown["tokens"], 400_000_000 + 2 * shown["documents"])

    def test_prepare_can_be_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            # A pipe that is full: whatever happens, it cannot get past the first line that it logs.
            read_end, write_end = os.pipe()
            os.set_blocking(write_end, False)
            try:
                while True:
                    os.write(write_end, b"." * 4096)
            except BlockingIOError:
                os.set_blocking(write_end, True)
            process = self.prepare_large(stderr=write_end)
            os.close(write_end)
            wait_until((self.folder / "large.bin.partial").exists, "the beginning of the dataset")
            process.send_signal(number)
            with open(read_end) as pipe:
                errors = pipe.read().lstrip(".")
            self.assertEqual(process.wait(), 3, errors)
            self.assertIn("large was not written", errors)
            self.assertEqual([path.name for path in self.folder.glob("large*")], ["large.txt"])

    def test_commands_that_put_nothing_in_order_end_at_once(self):
        fifo = self.folder / "config_that_never_comes"
        os.mkfifo(fifo)
        process = subprocess.Popen([os.environ["ATOLL"], "inspect", "config", str(fifo)])
        with open(fifo, "wb"):  # It opens only once the process has opened the other end.
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(timeout=60), -signal.SIGINT)

    def test_unknown_command_line(self):
        self.assertEqual(run_atoll("trian").returncode, 2)
        self.assertEqual(run_atoll("train").returncode, 2)


if __name__ == "__main__":
    unittest.main()
