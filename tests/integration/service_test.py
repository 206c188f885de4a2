"""A node and a coordinator under a service manager, which is this test; and the units and the man page, with systemd's and groff's own checks."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from cluster import ATOLL, DEADLINE_SECONDS, ClusterTest, wait_until

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"


class Manager:
    """The socket that sd_notify(3) speaks to."""

    def __init__(self, folder):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.settimeout(0.05)
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "400000"}
        self.lines = []

    def hear(self, what):
        """Until a line matches; the lines up to it are consumed."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            while self.lines:
                line = self.lines.pop(0)
                if re.fullmatch(what, line):
                    return line
            try:
                self.lines += self.socket.recv(4096).decode().split("\n")
            except TimeoutError:
                pass
        raise AssertionError(f"waited {DEADLINE_SECONDS:.0f} s in vain for {what}")


class ServiceTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.manager = Manager(self.folder)
        self.addCleanup(self.manager.socket.close)

    def test_a_node_says_what_it_does_and_leaves_when_told(self):
        self.start_coordinator(training__steps=1000000)
        node = self.start_node("a", training__steps=1000000, popen={"env": self.manager.environment})
        self.manager.hear("READY=1")
        self.manager.hear("STATUS=joining the swarm")
        self.manager.hear(r"STATUS=step \d+ of 1000000, loss \d\.\d+, \d+ rounds")
        for _ in range(5):
            self.manager.hear("WATCHDOG=1")
        node.signal(signal.SIGTERM)
        self.manager.hear("STOPPING=1")
        self.manager.hear(r"EXTEND_TIMEOUT_USEC=\d+")
        self.assertEqual(node.finish(), 0, node.tail())
        self.assertTrue(list(node.directory.glob("checkpoints/step-*")))
        self.assertNotIn("\x1b", node.output.read_text(), "colours, which a journal shows as garbage")

    def test_waiting_for_others_is_progress_and_hanging_is_not(self):
        self.start_coordinator(swarm__start_members=2)
        node = self.start_node("a", popen={"env": self.manager.environment})
        self.manager.hear("READY=1")
        for _ in range(5):
            self.manager.hear("WATCHDOG=1")
        node.signal(signal.SIGSTOP)
        wait_until(lambda: "State:\tT" in pathlib.Path(f"/proc/{node.process.pid}/status").read_text(), "the stop")
        self.manager.socket.setblocking(False)
        with self.assertRaises(BlockingIOError):
            while True:
                self.manager.socket.recv(4096)
        node.signal(signal.SIGCONT)
        self.manager.socket.settimeout(0.05)
        self.manager.hear("WATCHDOG=1")
        other = self.start_node("b")
        self.assert_finished(node, other)

    def test_a_coordinator(self):
        coordinator = subprocess.Popen([ATOLL, "coordinate", "--config", str(self.config), "--listen", "127.0.0.1:0", "--set",
                                        f"node.run_directory={self.folder / 'c'}"], env=self.manager.environment, stderr=subprocess.DEVNULL)
        self.addCleanup(coordinator.wait)
        self.addCleanup(coordinator.kill)
        self.manager.hear("READY=1")
        self.manager.hear("STATUS=listening on .*")
        self.manager.hear("STATUS=0 members, 0 rounds committed")
        for _ in range(3):
            self.manager.hear("WATCHDOG=1")
        coordinator.send_signal(signal.SIGTERM)
        self.manager.hear("STOPPING=1")
        self.assertEqual(coordinator.wait(DEADLINE_SECONDS), 0)


class InstalledFilesTest(unittest.TestCase):
    def units(self):
        """The units as they would be installed beside this executable."""
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        for template in (DEPLOY / "systemd").glob("*.in"):
            (folder / template.stem).write_text(template.read_text().replace("@bindir@/atoll", ATOLL))
        return sorted(folder.iterdir())

    def test_restarts_are_for_exit_code_3(self):
        for unit in self.units():
            text = unit.read_text()
            for line in ("Type=notify", "Restart=on-failure", "RestartForceExitStatus=3", "DynamicUser=yes", "WatchdogSignal=SIGKILL"):
                self.assertIn(line + "\n", text, unit.name)
            self.assertRegex(text, r"(?m)^RestartPreventExitStatus=1 2 ")

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze")
    def test_systemd_takes_the_units(self):
        units = self.units()
        result = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        ours = [line for line in result.stderr.splitlines() if "atoll" in line]
        self.assertEqual(ours, [])
        for unit in units:
            result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)],
                                    capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stdout[-300:] + result.stderr)

    def test_the_man_page_has_every_command(self):
        page = subprocess.run([sys.executable, str(DEPLOY / "man_page.py"), ATOLL], capture_output=True, text=True, check=True).stdout
        for command in ("train", "coordinate", "prepare", "doctor", "inspect keys", "keys new\\-run", "bench step"):
            self.assertIn(f".SS atoll {command}\n", page)
        self.assertIn(r"\-\-dry\-run", page)
        self.assertNotIn(str(pathlib.Path(ATOLL).parent), page)
        if shutil.which("groff"):
            result = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True)
            self.assertEqual(result.stderr, "")


if __name__ == "__main__":
    unittest.main()
