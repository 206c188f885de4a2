"""Who may be in a run: secrets, keys and lists, with real processes."""

import os
import subprocess
import unittest

from cluster import ATOLL, ClusterTest, run_atoll, wait_until

WITHOUT_SECRET = {key: value for key, value in os.environ.items() if key != "ATOLL_RUN_SECRET"}
FOREVER = {"training__steps": 1000000}


class SecurityTest(ClusterTest):
    def new_key(self, name):
        """Path and public half."""
        path = self.folder / f"{name}.key"
        return path, run_atoll("keys", "new-node", path).stdout.strip()

    def write_list(self, **keys):
        """As an editor does: a new file in the place of the old one."""
        path = self.folder / "allowed"
        fresh = self.folder / "allowed.new"
        fresh.write_text("".join(f"{key} {name}\n" for name, key in keys.items()))
        fresh.rename(path)
        return path

    def refused(self, parts, *arguments, env=None):
        result = subprocess.run([ATOLL, *map(str, arguments)], capture_output=True, text=True, env=env)
        self.assertEqual(result.returncode, 2, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        return result.stderr

    def test_a_swarm_with_a_secret_in_a_file(self):
        secret = self.folder / "run.secret"
        self.assertEqual(run_atoll("keys", "new-run", secret).returncode, 0)
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
        os.environ.pop("ATOLL_RUN_SECRET")
        try:
            self.start_coordinator(node__run_secret_file=secret)
            nodes = [self.start_node(name, node__run_secret_file=secret) for name in "ab"]
        finally:
            os.environ["ATOLL_RUN_SECRET"] = "5" * 64
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, 3)
        self.assertNotIn("swarm.security is none", nodes[0].tail() + self.coordinator_log())

    def test_what_is_missing_or_wrong_is_said_and_no_secret_is_shown(self):
        digits = "cd" * 31
        coordinate = ["coordinate", "--config", self.config, "--listen", "127.0.0.1:0"]
        self.refused(["no secret", "atoll keys new-run run.secret"], *coordinate, env=WITHOUT_SECRET)
        train = ["train", "--config", self.config, "--set", f"node.run_directory={self.folder / 'n'}", "--set", "swarm.coordinator=127.0.0.1:1"]
        self.refused(["no secret", "atoll keys new-run run.secret"], *train, env=WITHOUT_SECRET)
        text = self.refused(["ATOLL_RUN_SECRET is no secret"], *coordinate, env={**WITHOUT_SECRET, "ATOLL_RUN_SECRET": digits})
        self.assertNotIn(digits, text)
        bad = self.folder / "bad"
        bad.write_text(f"atoll-run-secret {digits}\n")
        text = self.refused([f"{bad} is no secret"], *coordinate, "--set", f"node.run_secret_file={bad}", env=WITHOUT_SECRET)
        self.assertNotIn(digits, text)
        keys = ["--set", "swarm.security=keys"]
        self.refused(["node.allowed_keys_file is missing"], *coordinate, *keys)
        allowed = self.write_list()
        self.refused([f"{allowed}: there is no key in it"], *coordinate, *keys, "--set", f"node.allowed_keys_file={allowed}")
        allowed = self.write_list(someone="ab" * 32)
        self.refused(["node.key_file is missing"], *coordinate, *keys, "--set", f"node.allowed_keys_file={allowed}")
        self.refused(["swarm.coordinator_key"], *train, *keys)
        allowed.write_text("abc\n")
        self.refused([f"{allowed}: line 1: it does not begin with a key"], *coordinate, *keys, "--set", f"node.allowed_keys_file={allowed}")
        self.refused([f"{bad} is there already"], "keys", "new-run", bad)
        self.refused([f"{bad} is no node key"], *train, "--set", f"node.key_file={bad}")

    def test_another_secret_is_refused_and_said_and_the_run_goes_on(self):
        self.start_coordinator(training__steps=60)
        node = self.start_node("a", training__steps=60)
        result = subprocess.run([ATOLL, "train", "--config", str(self.config), "--set", f"node.run_directory={self.folder / 'stranger'}",
                                 "--set", "training.steps=60", "--set", f"swarm.coordinator={self.address}", "--set",
                                 "swarm.coordinator_patience_seconds=1", "--set", "swarm.dead_seconds=1"], capture_output=True, text=True,
                                env={**os.environ, "ATOLL_RUN_SECRET": "6" * 64})
        self.assertIn("it has another run secret", result.stderr)
        self.assertEqual(result.returncode, 3, result.stderr)  # It may be the coordinator that has the wrong one.
        self.assertFalse((self.folder / "stranger").exists())
        self.assertEqual(node.finish(), 0, node.tail())
        self.assertIn(("refused", "it does not take us: its run secret is not ours"), self.coordinators_incidents())

    def test_without_security_every_start_warns(self):
        self.start_coordinator(swarm__security="none")
        node = self.start_node("a", swarm__security="none")
        self.assert_finished(node)
        for text in (node.tail(), self.coordinator_log()):
            self.assertIn("swarm.security is none", text)

    def test_keys_are_let_in_by_the_list_and_put_out_while_the_run_goes_on(self):
        coordinator_file, coordinator_key = self.new_key("coordinator")
        files, keys = zip(*(self.new_key(name) for name in "abc"))
        allowed = self.write_list(a=keys[0], b=keys[1])
        common = {**FOREVER, "swarm__security": "keys"}
        self.start_coordinator(**common, node__key_file=coordinator_file, node__allowed_keys_file=allowed)

        def start(name, file):
            return self.start_node(name, **common, node__key_file=file, swarm__coordinator_key=coordinator_key,
                                   swarm__coordinator_patience_seconds=3, swarm__dead_seconds=3)

        a, b = start("a", files[0]), start("b", files[1])
        for node in (a, b):
            node.wait_for_round(2)
        # Who is not on the list does not get in, and hears why.
        c = start("c", files[2])
        self.assertEqual(c.finish(), 3, c.tail())
        self.assertIn("our key is not on its list", c.tail())
        # One is taken from it: it is out, and the other goes on.
        self.write_list(a=keys[0])
        self.assertEqual(b.finish(), 3, b.tail())
        self.assertIn("our key is not on its list", b.tail())
        self.assertIn("its key is not on the list of the run any more", self.coordinator_log())
        a.wait_for_round(a.lines("round")[-1]["round"] + 2)
        self.assertFalse(a.is_over(), a.tail())
        # A list that is none changes nothing and is told.
        (self.folder / "allowed").write_text("nonsense\n")
        wait_until(lambda: "the list of keys stays" in self.coordinator_log(), "a warning")
        a.wait_for_round(a.lines("round")[-1]["round"] + 1)
        # And one that is put on it gets in.
        self.write_list(a=keys[0], c=keys[2])
        again = start("c", files[2])
        again.wait_for_round(a.lines("round")[-1]["round"] + 1)


if __name__ == "__main__":
    unittest.main()
