"""`atoll doctor`: judges a machine and its way to a run, with real processes, and leaves both as they were."""

import json
import os
import socket
import subprocess
import unittest

from cluster import ATOLL, ClusterTest, run_atoll


class DoctorTest(ClusterTest):
    def examine(self, *options, settings=(), code=None, env=None):
        command = [ATOLL, "doctor", "--config", str(self.config), "--json", *map(str, options)]
        for setting in (f"node.run_directory={self.folder / 'run'}", *settings):
            command += ["--set", setting]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=120)
        report = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0 if report["fit"] else 3, result.stderr)
        self.assertEqual(report["fit"], all(check["level"] != "FAIL" for check in report["checks"]))
        if code is not None:
            self.assertEqual(result.returncode, code, result.stdout)
        return {check["name"]: check for check in report["checks"]}

    def at_coordinator(self):
        return f"swarm.coordinator={self.address}"

    def test_without_a_config_the_machine_is_judged(self):
        report = json.loads(run_atoll("doctor", "--json").stdout)
        names = [check["name"] for check in report["checks"]]
        self.assertEqual(names[:4], ["processors", "memory", "disk space", "disk speed"])
        for name in ("descriptors", "socket buffers", "congestion control", "clock", "/dev/shm"):
            self.assertIn(name, names)
        self.assertNotIn("coordinator", names)
        for check in report["checks"]:
            self.assertTrue(check["value"], check)
        self.assertEqual(run_atoll("doctor", "--dial-back").returncode, 2)

    def test_a_node_that_could_start(self):
        self.start_coordinator(swarm__start_members=2)
        files = lambda: sorted(path for path in self.folder.rglob("*") if path.name != "coordinator.jsonl")
        before = files()
        checks = self.examine("--dial-back", "--rate-mbit", 100, "--nodes", 4, settings=[self.at_coordinator()], code=0)
        self.assertEqual(files(), before)  # The coordinator's metrics say who was sent away.
        for name in ("coordinator", "config", "port", "dial-back", "time-outs"):
            self.assertEqual(checks[name]["level"], "OK", checks[name])
        self.assertIn("the longest round", checks["time-outs"]["value"])
        # The visits left nothing behind: a run begins as if there had been none.
        nodes = [self.start_node(name) for name in "ab"]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, 3)

    def test_a_visit_does_not_disturb_a_run(self):
        self.start_coordinator(training__steps=400)
        node = self.start_node("a", training__steps=400)
        node.wait_for_round(2)
        for options in ([], ["--dial-back"]):
            checks = self.examine(*options, settings=[self.at_coordinator(), "training.steps=400"], code=0)
        self.assertEqual(checks["dial-back"]["level"], "OK", checks)
        self.assert_finished(node)
        self.assertTrue(all(line["members"] == [node.lines("membership")[0]["members"][0]] for line in node.lines("membership")))

    def test_what_differs_from_the_run_is_named(self):
        self.start_coordinator()
        checks = self.examine(settings=[self.at_coordinator(), "optimizer.learning_rate=0.5"], code=3)
        self.assertIn("optimizer.learning_rate: here 0.5, there 0.003", checks["config"]["value"])
        self.assertIn("--change optimizer.learning_rate", checks["config"]["advice"])

    def test_strangers_and_nobody(self):
        self.start_coordinator()
        checks = self.examine(settings=[self.at_coordinator()], code=3, env={"ATOLL_RUN_SECRET": "6" * 64})
        self.assertIn("another run secret", checks["coordinator"]["value"])
        checks = self.examine(settings=[self.at_coordinator()], code=3, env={"ATOLL_RUN_SECRET": ""})
        self.assertIn("atoll keys new-run", checks["security"]["advice"])
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            checks = self.examine(settings=[f"swarm.coordinator={address}"], code=3)
        self.assertIn(f"{address}: cannot connect", checks["coordinator"]["value"])
        self.assertEqual(checks["port"]["level"], "OK")

    def test_keys(self):
        def new_key(name):
            return self.folder / name, run_atoll("keys", "new-node", self.folder / name).stdout.strip()

        (file, key), (coordinator_file, coordinator_key) = new_key("a"), new_key("c")
        (self.folder / "allowed").write_text(f"{key} a\n")
        keys = {"swarm__security": "keys", "node__key_file": coordinator_file, "node__allowed_keys_file": self.folder / "allowed"}
        self.start_coordinator(**keys)
        mine = [self.at_coordinator(), "swarm.security=keys", f"swarm.coordinator_key={coordinator_key}"]
        checks = self.examine("--dial-back", settings=[*mine, f"node.key_file={file}"], code=0)
        self.assertEqual(checks["dial-back"]["level"], "OK")
        stranger, _ = new_key("b")
        checks = self.examine(settings=[*mine, f"node.key_file={stranger}"], code=3)
        self.assertIn("our key is not on its list", checks["coordinator"]["value"])

    def test_ports_and_maps(self):
        self.start_coordinator()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            checks = self.examine(settings=[self.at_coordinator(), f"node.listen=127.0.0.1:{port}"], code=3)
            self.assertIn("in use", checks["port"]["value"])
        # The port is free now; the provider's variables say that it is mapped to itself.
        mapped = {"PUBLIC_IPADDR": "127.0.0.1", f"VAST_TCP_PORT_{port}": str(port)}
        settings = [self.at_coordinator(), f"node.listen=0.0.0.0:{port}"]
        checks = self.examine(settings=settings, code=0, env=mapped)
        self.assertEqual((checks["address"]["level"], checks["address"]["value"]), ("OK", f"127.0.0.1:{port} leads to this node"))
        # Mapped to where another node of the run answers: the coordinator's own port says nothing like that.
        wrong = {"PUBLIC_IPADDR": "127.0.0.1", f"VAST_TCP_PORT_{port}": self.address.split(":")[1]}
        checks = self.examine(settings=settings, code=0, env=wrong)
        self.assertEqual(checks["address"]["level"], "WARN")
        checks = self.examine("--dial-back", settings=settings, code=3, env=wrong)
        self.assertEqual(checks["dial-back"]["level"], "FAIL", checks)
        unmapped = self.examine(settings=settings, code=0, env={"RUNPOD_PUBLIC_IP": "127.0.0.1"})
        self.assertIn("no port of this machine is mapped", unmapped["port map"]["value"])

    def test_a_line_that_is_too_thin_for_the_time_outs(self):
        self.start_coordinator()
        checks = self.examine("--rate-mbit", 0.001, "--nodes", 8, settings=[self.at_coordinator()], code=3)
        self.assertIn("swarm.round_timeout_seconds", checks["time-outs"]["advice"])

    def test_people_can_read_it(self):
        text = run_atoll("doctor", "--config", self.config, "--set", "node.device=cuda").stdout
        if not os.path.exists("/dev/nvidiactl"):
            self.assertRegex(text, r"(?m)^FAIL GPU +\S.*\n +-> \S")
        self.assertRegex(text, r"(?m)^OK   descriptors +\d+ files")


if __name__ == "__main__":
    unittest.main()
